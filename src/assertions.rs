//! Assertions of users' code: [`always!`](crate::always) and [`sometimes!`](crate::sometimes).
//!
//! The crate `lameduck-sim` enables the feature `__assertions`. Then each assertion that is
//! compiled into a program is in its catalog, also in code that never runs, and an observer sees
//! those that run. Without the feature an assertion is checked by the compiler and does nothing.
//!
//! The crates of this repository contain no assertion: it would be in the catalog of each user.

/// Asserts that a condition holds whenever a run reaches this place.
///
/// Only the simulation checks it: the tests of the crate `lameduck-sim`. A run in which the
/// condition does not hold fails, with the text and the place. A run that never reaches the place
/// fails, too, since it proves nothing about it. `Trials::assertions_in` of that crate limits a run
/// to the assertions of some modules.
///
/// The text is a constant. **The condition is evaluated only in a simulation**, as the one of
/// `debug_assert!` is only in a debug build, so it must not have side effects. A program whose
/// build does not include `lameduck-sim` contains no code for it.
///
/// ```standalone_crate
/// # use axum::{Router, routing::get};
/// use lameduck::always;
/// use lameduck_sim::explore;
///
/// async fn pay() {
///     let balance = 3;
///     always!(balance >= 0, "the balance is never negative");
/// }
///
/// explore(|world| world.host().serve(Router::new().route("/pay", get(pay))))
///     .get("/pay")
///     .seeds(0..10)
///     .run()
///     .unwrap();
/// ```
#[macro_export]
macro_rules! always {
    ($holds:expr, $what:expr $(,)?) => {
        $crate::__assertion!(Always, $holds, $what)
    };
}

/// Asserts that some run reaches this place, with a condition that holds there. Without a condition
/// it is enough that the place is reached.
///
/// A test whose runs never reach a place proves nothing about it: a retry during the drain, a
/// message in the lame duck delay. Such a test passes, and this makes it fail. It need not name the
/// assertion.
///
/// Only the simulation checks it, and only there the condition is evaluated: see
/// [`always!`](crate::always).
///
/// ```standalone_crate
/// # use axum::{Router, routing::get};
/// use lameduck::{RequestContext, lifecycle::Phase, sometimes};
/// use lameduck_sim::explore;
///
/// async fn order(context: axum::Extension<RequestContext>) {
///     sometimes!(context.phase() == Phase::LameDuck, "an order comes in the lame duck delay");
/// }
///
/// explore(|world| world.host().serve(Router::new().route("/orders", get(order))))
///     .get("/orders")
///     .seeds(0..50)
///     .run()
///     .unwrap();
/// ```
#[macro_export]
macro_rules! sometimes {
    ($what:literal $(,)?) => {
        $crate::__assertion!(Sometimes, true, $what)
    };
    ($holds:expr, $what:expr $(,)?) => {
        $crate::__assertion!(Sometimes, $holds, $what)
    };
}

#[cfg(feature = "__assertions")]
#[doc(hidden)]
#[macro_export]
macro_rules! __assertion {
    ($kind:ident, $holds:expr, $what:expr) => {{
        const ASSERTION: $crate::assertions::Assertion = $crate::assertions::Assertion {
            kind: $crate::assertions::AssertionKind::$kind,
            what: $what,
            module: ::core::module_path!(),
            at: ::core::concat!(::core::file!(), ":", ::core::line!()),
        };
        $crate::assertions::inventory::submit! { ASSERTION }
        if let ::core::option::Option::Some(observer) = $crate::assertions::observer() {
            observer(&ASSERTION, $holds);
        }
    }};
}

#[cfg(not(feature = "__assertions"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __assertion {
    ($kind:ident, $holds:expr, $what:expr) => {{
        const _: &::core::primitive::str = $what;
        if false {
            let _: ::core::primitive::bool = $holds;
        }
    }};
}

#[cfg(feature = "__assertions")]
pub use catalog::*;

#[cfg(feature = "__assertions")]
mod catalog {
    // Its entries are made by constructors that run before `main`. Those of `linkme` are in a
    // section that some linkers discard.
    pub use inventory;
    use std::sync::OnceLock;

    static OBSERVER: OnceLock<Observer> = OnceLock::new();

    /// Called for each assertion that runs, with its condition.
    pub type Observer = fn(&Assertion, bool);

    /// An assertion in the code.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Assertion {
        /// Where it is: `src/orders.rs:12`.
        pub at: &'static str,
        /// Its text.
        pub what: &'static str,
        /// The path of its module: `shop::orders`.
        pub module: &'static str,
        /// What it asserts.
        pub kind: AssertionKind,
    }

    /// What an assertion asserts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum AssertionKind {
        /// Its condition holds each time.
        Always,
        /// Its condition holds in some run.
        Sometimes,
    }

    inventory::collect!(Assertion);

    /// Returns all assertions of this program, in no order. The same place may be in it twice.
    pub fn all() -> impl Iterator<Item = &'static Assertion> {
        inventory::iter::<Assertion>()
    }

    /// Sets the observer. Only the first call has an effect.
    pub fn observe(observer: Observer) {
        let _ = OBSERVER.set(observer);
    }

    /// Returns the observer, if one was set.
    pub fn observer() -> Option<Observer> {
        OBSERVER.get().copied()
    }
}

/// Compiles both macros as users do in production: all tests are built with the feature.
#[cfg(not(feature = "__assertions"))]
const _: fn() = || {
    always!(1 > 0, "one is positive");
    sometimes!(1 > 0, "one is positive");
    sometimes!("it is reached");
};

#[cfg(all(test, feature = "__assertions"))]
mod tests {
    #[test]
    fn an_assertion_is_in_the_catalog_and_without_a_simulation_its_condition_is_not_evaluated() {
        let mut evaluated = 0;
        always!(
            {
                evaluated += 1;
                false
            },
            "it does not hold"
        );
        sometimes!(
            {
                evaluated += 1;
                false
            },
            "it never does"
        );
        assert_eq!(evaluated, 0);
        for what in ["it does not hold", "it never does"] {
            let entry = super::all().find(|assertion| assertion.what == what);
            let entry = entry.expect("it is in the catalog");
            assert_eq!(entry.module, module_path!());
            assert!(entry.at.starts_with("src/assertions.rs:"), "{entry:?}");
        }
    }
}
