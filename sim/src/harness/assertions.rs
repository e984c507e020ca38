//! Assertions of users' code: what a run observes of [`always!`](lameduck::always) and
//! [`sometimes!`](lameduck::sometimes), and which of them no run reached.

use super::seeds;
use crate::{explore::current_trace, oracle::Broken, scenario::SERVER, trace::Trace};
use lameduck::assertions::{Assertion, AssertionKind, all, observe};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

/// Event for an `always!` that did not hold.
pub(super) const BROKEN: &str = "always broken";
/// Event for a `sometimes!`, whether its condition held or not, and for an `always!` that held.
const REACHED: &str = "assertion";
/// The most assertions in a message.
const NAMED_MAX: usize = 8;

/// Which assertions of the test binary a run must reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Those in these modules, and in the modules inside.
    Modules(Vec<String>),
    None,
}

impl Scope {
    /// Adds a module.
    pub(super) fn with(self, module: String) -> Self {
        match self {
            Self::All | Self::None => Self::Modules(vec![module]),
            Self::Modules(mut modules) => {
                modules.push(module);
                Self::Modules(modules)
            }
        }
    }

    fn has(&self, assertion: &Assertion) -> bool {
        match self {
            Self::All => true,
            Self::Modules(modules) => modules.iter().any(|module| is_in(assertion, module)),
            Self::None => false,
        }
    }
}

fn is_in(assertion: &Assertion, module: &str) -> bool {
    let rest = assertion.module.strip_prefix(module);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The assertions that a run must reach, and what it saw of each.
#[derive(Debug)]
pub(super) struct Assertions(Mutex<BTreeMap<Assertion, Seen>>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    reached: u64,
    held: bool,
}

impl Assertions {
    /// Observes all assertions from now on.
    ///
    /// # Panics
    /// Panics if a module of the scope has no assertion.
    #[track_caller]
    pub(super) fn of(scope: &Scope) -> Self {
        observe(record);
        if let Scope::Modules(modules) = scope {
            for module in modules {
                assert!(all().any(|it| is_in(it, module)), "{}", no_assertion_in(module));
            }
        }
        let expected = all().filter(|assertion| scope.has(assertion));
        Self(Mutex::new(expected.map(|assertion| (*assertion, Seen::default())).collect()))
    }

    /// Adds what a run reached.
    pub(super) fn count(&self, trace: &Trace) {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.is_empty() {
            return;
        }
        for record in trace.events(REACHED) {
            let (at, what) = (record.text("at"), record.text("what"));
            let its = expected
                .iter_mut()
                .filter(|(assertion, _)| Some(assertion.at) == at && Some(assertion.what) == what);
            for (_, seen) in its {
                seen.reached += 1;
                seen.held |= record.text("holds") == Some("yes");
            }
        }
    }

    /// Returns why the runs prove too little: assertions that none reached. A single seed that the
    /// environment asks for need not reach them.
    pub(super) fn unreached(&self) -> Option<Broken> {
        if seeds::one_is_asked_for() {
            return None;
        }
        let expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unreached: Vec<String> =
            expected.iter().filter_map(|(assertion, seen)| words(assertion, *seen)).collect();
        if unreached.is_empty() {
            return None;
        }
        let more = match unreached.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let named = unreached[..unreached.len().min(NAMED_MAX)].join("; ");
        let module = expected.iter().find(|(_, seen)| seen.held).map(|(it, _)| it.module);
        let why = format!(
            "{named}{more}. Run more seeds, send a request that leads there, or see whether it can \
             happen at all. If this run is about another part of the service, limit it to the \
             assertions of some modules, .assertions_in({:?}), or give a reason, \
             .may_miss_assertions(\"…\")",
            module.unwrap_or("shop::orders")
        );
        Some(Broken { promise: "S7", words: "assertions hold", why })
    }
}

/// Describes an assertion that no run reached.
fn words(assertion: &Assertion, seen: Seen) -> Option<String> {
    let Assertion { at, what, module, kind } = assertion;
    let name = match kind {
        AssertionKind::Always => "always",
        AssertionKind::Sometimes => "sometimes",
    };
    match seen {
        Seen { held: true, .. } => None,
        Seen { reached: 0, .. } => {
            Some(format!("{name}: no run reached {what:?} at {at}, in {module}"))
        }
        Seen { reached, .. } => Some(format!(
            "{name}: {what:?} did not hold in any run, although {at}, in {module}, was reached \
             {reached} times"
        )),
    }
}

fn no_assertion_in(module: &str) -> String {
    let modules: BTreeSet<&str> = all().map(|assertion| assertion.module).collect();
    let modules: Vec<&str> = modules.into_iter().collect();
    let there = if modules.is_empty() { "none at all".to_owned() } else { modules.join(", ") };
    format!(
        "the module {module:?} has no assertion, so the run proves nothing about it; modules of \
         this test binary that have some: {there}"
    )
}

fn record(assertion: &Assertion, holds: bool) {
    let Some(trace) = current_trace() else { return };
    let (what, at) = (("what", assertion.what.into()), ("at", assertion.at.into()));
    if assertion.kind == AssertionKind::Always && !holds {
        trace.record(SERVER, BROKEN, &[what, at]);
    } else {
        let holds = ("holds", if holds { "yes" } else { "no" }.into());
        trace.record(SERVER, REACHED, &[what, at, holds]);
    }
}
