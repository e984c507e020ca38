//! A scenario: everything that happens to one host, as a value.
//!
//! It is flat, all of its randomness comes from its seed, and it can be serialized. Scenarios are
//! drawn from a seed, shrunk, and kept in files. All times are milliseconds of the world since its
//! beginning, unless a field says that they are by the host's clock.

mod call;
mod client;
mod header;
mod odd;
mod pieces;
mod previous;
mod rare;
mod request;
mod request_kind;
mod run;
mod sends_on;
mod statuses;
mod times;
mod traffic;

pub(crate) use call::MESSAGE;
pub use call::{Call, CallEnd};
pub use client::Client;
pub(crate) use client::has_failing_body;
pub use header::{HeaderFault, HeaderKind, ProxyHeader};
pub(crate) use header::{UNANNOUNCED, is_announced};
pub use odd::OddRequest;
pub use pieces::{ExtraFields, HeadInPieces};
pub(crate) use previous::Previous;
pub use rare::{CloseOption, RareRequest};
pub(crate) use request::Reads;
pub use request::Request;
pub use request_kind::{Cooperation, RequestKind, StuckResponse, WrongLength};
pub(crate) use run::run_while_void;
pub use run::{CLIENTS, Outcome, PROBER, SERVER, run, run_in_real_time, run_with};
pub(crate) use run::{ServedApp, client_name, run_life};
pub use sends_on::{SendsOn, SentOn};
pub use statuses::Statuses;
pub(crate) use times::{Time, TimeOf, times};
pub use traffic::{Pacing, Stranger, Traffic};

use crate::{checks::CheckScript, hooks::HookScript, reloads::ReloadScript, tasks::TaskScript};
use lameduck::{
    Caps, Limits,
    lifecycle::{Plan, Signal},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Not, time::Duration};

/// Everything that happens to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Description in one sentence.
    pub about: String,
    /// Seed of the latencies and of the host's own randomness.
    pub seed: u64,
    /// Range of the one-way network latency.
    pub latency_ms: (u64, u64),
    /// Whether listeners can drop the SYNs of new connections before they close.
    pub syn_filter: Filter,
    /// How much faster than the world the host's clock runs, in parts per million.
    pub clock_skew_ppm: i64,
    /// Time limit of each step, by the host's clock.
    pub plan: PlanMs,
    /// The deadline of every request, by the host's clock; `None` for no deadline.
    pub request_timeout_ms: Option<u64>,
    /// Limits on what clients may take, where they differ from the defaults.
    #[serde(default, skip_serializing_if = "LimitsMs::are_default")]
    pub limits: LimitsMs,
    /// Caps of the host that differ from production's, by their names in `lameduck::Caps`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caps: BTreeMap<String, u32>,
    /// Number of workers.
    pub workers: usize,
    /// Whether the main server listens on a second address, which every second client uses.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub second_address: bool,
    /// Whether the host's tasks run in an order that is drawn from the seed.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub reordered: bool,
    /// The hooks, in order.
    pub hooks: Vec<HookScript>,
    /// The background tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskScript>,
    /// The readiness checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckScript>,
    /// The reloads, by SIGHUP. Without them, SIGHUP is a stop request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reloads: Option<ReloadScript>,
    /// The stop requests. Without one the host never ends.
    pub stops: Vec<StopRequest>,
    /// The clients.
    pub clients: Vec<Client>,
    /// Whether the main server and its clients speak TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls: bool,
    /// The faults.
    pub faults: Vec<Fault>,
    /// Pause between two rounds of probes.
    pub probe_every_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// [`Limits`], with spans in milliseconds by the host's clock; `None` for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the limits' own")]
pub struct LimitsMs {
    pub connections_max: Option<usize>,
    pub first_byte_timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_handshake_timeout: Option<u64>,
    pub send_timeout: Option<u64>,
    pub body_timeout: Option<u64>,
    pub keep_alive: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_streams_max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_age_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_max: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_bytes_max: Option<usize>,
}

impl LimitsMs {
    fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the host's limits.
    #[must_use]
    pub fn limits(self) -> Limits {
        let defaults = Limits::default();
        let span = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
        defaults
            .connections_max(self.connections_max.unwrap_or(defaults.connections_max))
            .first_byte_timeout(span(self.first_byte_timeout, defaults.first_byte_timeout))
            .header_timeout(span(self.header_timeout, defaults.header_timeout))
            .tls_handshake_timeout(span(self.tls_handshake_timeout, defaults.tls_handshake_timeout))
            .send_timeout(span(self.send_timeout, defaults.send_timeout))
            .body_timeout(span(self.body_timeout, defaults.body_timeout))
            .keep_alive(span(self.keep_alive, defaults.keep_alive))
            .headers_max(self.headers_max.unwrap_or(defaults.headers_max))
            .header_bytes_max(self.header_bytes_max.unwrap_or(defaults.header_bytes_max))
            .connection_age_max(self.connection_age_max.map(Duration::from_millis))
            .http2_streams_max(self.http2_streams_max.unwrap_or(defaults.http2_streams_max))
    }
}

/// [`Plan`] in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the plan's own")]
pub struct PlanMs {
    pub start: u64,
    pub lame_duck: u64,
    pub drain: u64,
    pub cancel: u64,
    pub cleanup: u64,
    pub internal_close: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub streams: u64,
}

impl PlanMs {
    /// Converts `plan` to whole milliseconds.
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
            streams: ms(plan.streams),
        }
    }
}

/// Whether a listener can drop the SYNs of new connections before it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// It can.
    Available,
    /// It cannot.
    Missing,
}

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// When it is made.
    pub at_ms: u64,
    /// How it is made.
    pub by: StopBy,
}

/// Ways to request a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the signals' own names")]
pub enum StopBy {
    Sigterm,
    Sigint,
    Sigquit,
    Sighup,
    /// A call of the `ShutdownHandle`.
    Handle,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Nothing arrives between the clients and the host for a while; then everything does.
    Hold {
        /// When it begins.
        at_ms: u64,
        /// How long it lasts.
        for_ms: u64,
    },
    /// The host's reads and writes move at most `bytes` bytes, and sometimes none.
    PartialIo {
        /// The most bytes.
        bytes: u64,
    },
    /// The host's accepts fail because descriptors have run out.
    NoDescriptors {
        /// When it begins.
        at_ms: u64,
        /// How long it lasts.
        for_ms: u64,
    },
    /// Each accept of the host fails once, as if a client had aborted its connection first.
    AcceptAborted,
    /// A worker does not run for a while, as if something blocked its thread.
    Stall {
        /// Index of the worker.
        worker: usize,
        /// When it begins.
        at_ms: u64,
        /// How long it lasts.
        for_ms: u64,
    },
    /// All connections are reset by the network.
    ResetAll {
        /// When they are reset.
        at_ms: u64,
    },
    /// A service that a user's service depends on fails.
    Downstream {
        /// Number of the downstream, in the order in which they were added, modulo their count.
        downstream: u64,
        /// When it begins.
        at_ms: u64,
        /// How long it lasts.
        for_ms: u64,
        /// How it fails.
        how: DownstreamFault,
    },
}

/// How a service that a user's service depends on fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownstreamFault {
    /// It responds late.
    Slow,
    /// It has ended: its connections are reset, and new ones are refused.
    Refuses,
    /// It resets its connections, also new ones.
    Resets,
    /// It accepts connections and sends nothing.
    Stalls,
    /// It is gone from the network: nothing gets a response.
    Gone,
}

impl DownstreamFault {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Slow, Self::Refuses, Self::Resets, Self::Stalls, Self::Gone];

    /// Whether open connections are reset.
    #[must_use]
    pub const fn resets(self) -> bool {
        matches!(self, Self::Refuses | Self::Resets)
    }
}

impl Fault {
    /// Returns whether all bytes still arrive in time and are accepted.
    #[must_use]
    pub const fn delivers(self) -> bool {
        match self {
            // Between the clients and the host, that is.
            Self::PartialIo { .. } | Self::AcceptAborted | Self::Downstream { .. } => true,
            Self::Hold { .. }
            | Self::NoDescriptors { .. }
            | Self::Stall { .. }
            | Self::ResetAll { .. } => false,
        }
    }
}

impl Scenario {
    /// Creates a quiet scenario: one SIGTERM at 1 s, no hooks, no clients, one-way latencies of 1
    /// to 3 ms. The plan is 1 s lame duck, 2 s drain, 1 s cancel, 1 s cleanup, 500 ms internal
    /// close; the request deadline is 5 s.
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
                streams: 0,
            },
            request_timeout_ms: Some(5_000),
            limits: LimitsMs::default(),
            caps: BTreeMap::new(),
            tls: false,
            workers: 1,
            second_address: false,
            reordered: false,
            hooks: Vec::new(),
            tasks: Vec::new(),
            checks: Vec::new(),
            reloads: None,
            stops: vec![StopRequest { at_ms: 1_000, by: StopBy::Sigterm }],
            clients: Vec::new(),
            faults: Vec::new(),
            probe_every_ms: 100,
        }
    }

    /// Whether the main server has an address whose connections begin with a PROXY header.
    #[must_use]
    pub fn expects_headers(&self) -> bool {
        self.clients.iter().any(Client::expects_header)
    }

    /// Returns the host's limits, with its caps.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let mut caps = Caps::DEFAULT;
        for (name, most) in &self.caps {
            caps.set(name, *most);
        }
        self.limits.limits().caps(caps)
    }

    /// Returns a cap of the host.
    #[must_use]
    pub fn cap(&self, name: &str) -> Option<u32> {
        self.caps.get(name).copied()
    }

    /// Adds a client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push(client);
        self
    }

    /// Adds a hook.
    #[must_use]
    pub fn hook(mut self, hook: HookScript) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Adds a stop request.
    #[must_use]
    pub fn stop(mut self, at_ms: u64, by: StopBy) -> Self {
        self.stops.push(StopRequest { at_ms, by });
        self
    }

    /// Returns the time of the first stop request.
    #[must_use]
    pub fn first_stop_ms(&self) -> Option<u64> {
        self.stops.iter().map(|stop| stop.at_ms).min()
    }

    /// Returns the most time that the world may take. It covers the last scheduled event, a start,
    /// a whole shutdown by a slow clock, and a client's timeout.
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
            + run::MAX_WAIT * 2
    }

    /// Returns the host's plan.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        let ms = &self.plan;
        Plan::new()
            .start(Duration::from_millis(ms.start))
            .lame_duck(Duration::from_millis(ms.lame_duck))
            .drain(Duration::from_millis(ms.drain))
            .cancel(Duration::from_millis(ms.cancel))
            .cleanup(Duration::from_millis(ms.cleanup))
            .internal_close(Duration::from_millis(ms.internal_close))
            .streams(Duration::from_millis(ms.streams))
    }
}

impl StopBy {
    /// Returns the signal, if the stop request is one.
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
