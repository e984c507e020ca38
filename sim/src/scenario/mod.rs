//! A scenario: everything that happens to one host, as a value.
//!
//! It is flat, has no hidden chance but its seed, and can be written down: drawn from a seed, shrunk, kept in a file. All
//! times are milliseconds of the world since it began, unless a field says that they are the host's.

mod run;
mod traffic;

pub use run::{CLIENTS, Outcome, PROBER, SERVER, run, run_with};
pub(crate) use run::{client_name, run_life};
pub use traffic::{Client, Cooperation, Pacing, RequestKind, StuckResponse, Traffic};

use crate::{checks::CheckScript, hooks::HookScript, tasks::TaskScript};
use lameduck::{
    Limits,
    lifecycle::{Plan, Signal},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What happens to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// What it is about, in a sentence.
    pub about: String,
    /// Where chance comes from: latencies, and the host's own.
    pub seed: u64,
    /// The one-way latency of the network, from and to.
    pub latency_ms: (u64, u64),
    /// Whether listeners can keep newcomers out before they close.
    pub syn_filter: Filter,
    /// How much faster than the world the host's clock runs, in parts in a million.
    pub clock_skew_ppm: i64,
    /// How long each step may take, by the host's clock.
    pub plan: PlanMs,
    /// The deadline of every request, by the host's clock.
    pub request_timeout_ms: Option<u64>,
    /// The limits that clients meet, where they differ from the defaults.
    #[serde(default, skip_serializing_if = "LimitsMs::are_default")]
    pub limits: LimitsMs,
    /// How many workers the host has.
    pub workers: usize,
    /// Its hooks.
    pub hooks: Vec<HookScript>,
    /// Its background tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskScript>,
    /// Its readiness checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckScript>,
    /// Who asks it to stop. Without any it never ends.
    pub stops: Vec<StopRequest>,
    /// Who uses it.
    pub clients: Vec<Client>,
    /// What goes wrong around it.
    pub faults: Vec<Fault>,
    /// How often readiness and liveness are asked for.
    pub probe_every_ms: u64,
}

/// [`Limits`], in milliseconds by the host's clock; `None` for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the limits' own")]
pub struct LimitsMs {
    pub connections_max: Option<usize>,
    pub first_byte_timeout: Option<u64>,
    pub send_timeout: Option<u64>,
    pub body_timeout: Option<u64>,
}

impl LimitsMs {
    fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// The host's.
    #[must_use]
    pub fn limits(self) -> Limits {
        let defaults = Limits::default();
        let span = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
        Limits {
            connections_max: self.connections_max.unwrap_or(defaults.connections_max),
            first_byte_timeout: span(self.first_byte_timeout, defaults.first_byte_timeout),
            send_timeout: span(self.send_timeout, defaults.send_timeout),
            body_timeout: span(self.body_timeout, defaults.body_timeout),
            ..defaults
        }
    }
}

/// [`Plan`], in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the plan's own")]
pub struct PlanMs {
    pub start: u64,
    pub lame_duck: u64,
    pub drain: u64,
    pub cancel: u64,
    pub cleanup: u64,
    pub internal_close: u64,
}

impl PlanMs {
    /// The same, in whole milliseconds.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            start: ms(plan.start),
            lame_duck: ms(plan.lame_duck),
            drain: ms(plan.drain),
            cancel: ms(plan.cancel),
            cleanup: ms(plan.cleanup),
            internal_close: ms(plan.internal_close),
        }
    }
}

/// Whether a listener can keep newcomers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// It can.
    Available,
    /// It cannot.
    Missing,
}

/// Somebody asks for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// When.
    pub at_ms: u64,
    /// How.
    pub by: StopBy,
}

/// How a stop is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the signals' own names")]
pub enum StopBy {
    Sigterm,
    Sigint,
    Sigquit,
    Sighup,
    /// By code.
    Handle,
}

/// Something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Between clients and host nothing arrives for a while; then all of it does.
    Hold {
        /// From.
        at_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// The host's reads and writes move so many bytes at most, and sometimes none.
    PartialIo {
        /// How many.
        bytes: u64,
    },
    /// The host's accepts fail for want of descriptors.
    NoDescriptors {
        /// From.
        at_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// Each accept of the host's fails once: somebody else's connection was gone by then.
    AcceptAborted,
    /// Something between clients and host resets all connections.
    ResetAll {
        /// When.
        at_ms: u64,
    },
}

impl Fault {
    /// Whether all that is sent arrives, in its time, and is taken.
    #[must_use]
    pub const fn delivers(self) -> bool {
        match self {
            Self::PartialIo { .. } | Self::AcceptAborted => true,
            Self::Hold { .. } | Self::NoDescriptors { .. } | Self::ResetAll { .. } => false,
        }
    }
}

impl Scenario {
    /// A quiet one: one SIGTERM at 1 s to a host with no hooks and no clients, on a network of 1 to 3 ms, with a plan of 1 s
    /// lame duck, 2 s drain, 1 s cancel, 1 s cleanup, 500 ms internal close, and a request deadline of 5 s.
    #[must_use]
    pub fn new(about: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            seed: 1,
            latency_ms: (1, 3),
            syn_filter: Filter::Available,
            clock_skew_ppm: 0,
            plan: PlanMs {
                start: 10_000,
                lame_duck: 1_000,
                drain: 2_000,
                cancel: 1_000,
                cleanup: 1_000,
                internal_close: 500,
            },
            request_timeout_ms: Some(5_000),
            limits: LimitsMs::default(),
            workers: 1,
            hooks: Vec::new(),
            tasks: Vec::new(),
            checks: Vec::new(),
            stops: vec![StopRequest { at_ms: 1_000, by: StopBy::Sigterm }],
            clients: Vec::new(),
            faults: Vec::new(),
            probe_every_ms: 100,
        }
    }

    /// With one more client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push(client);
        self
    }

    /// With one more hook.
    #[must_use]
    pub fn hook(mut self, hook: HookScript) -> Self {
        self.hooks.push(hook);
        self
    }

    /// With one more stop request.
    #[must_use]
    pub fn stop(mut self, at_ms: u64, by: StopBy) -> Self {
        self.stops.push(StopRequest { at_ms, by });
        self
    }

    /// When the first stop is asked for.
    #[must_use]
    pub fn first_stop_ms(&self) -> Option<u64> {
        self.stops.iter().map(|stop| stop.at_ms).min()
    }

    /// The longest the world may take: the last thing that is asked for, a start, a whole shutdown by a slow clock, and a
    /// client's patience.
    #[must_use]
    pub fn limit(&self) -> Duration {
        let asked = self
            .stops
            .iter()
            .map(|stop| stop.at_ms)
            .chain(self.clients.iter().map(|client| client.at_ms))
            .max();
        let plan = self.plan();
        Duration::from_millis(asked.unwrap_or(0))
            + (plan.start + plan.worst_case()) * 2
            + run::PATIENCE * 2
    }

    /// The host's plan.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        let ms = &self.plan;
        Plan {
            start: Duration::from_millis(ms.start),
            lame_duck: Duration::from_millis(ms.lame_duck),
            drain: Duration::from_millis(ms.drain),
            cancel: Duration::from_millis(ms.cancel),
            cleanup: Duration::from_millis(ms.cleanup),
            internal_close: Duration::from_millis(ms.internal_close),
        }
    }
}

impl StopBy {
    /// The signal, if it is one.
    #[must_use]
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Self::Sigterm => Some(Signal::Terminate),
            Self::Sigint => Some(Signal::Interrupt),
            Self::Sigquit => Some(Signal::Quit),
            Self::Sighup => Some(Signal::Hangup),
            Self::Handle => None,
        }
    }
}
