//! State shared by all connections of a server.

pub(super) mod abort;
pub(super) mod announcement;
pub(super) mod capacity;
pub(super) mod caps;
pub(super) mod client_timeout;
pub(super) mod connection_slot;
pub(super) mod counters;
pub(super) mod date;
pub(super) mod deadline_queue;
pub(super) mod deadline_timers;
pub(super) mod idle_policy;
#[cfg(feature = "metrics")]
pub(super) mod latency;
pub(super) mod limits;
mod log_limit;
pub(super) mod outcome;
pub(super) mod outstanding;
pub(super) mod server_metrics;
mod spawned_work;
pub(super) mod state;
pub(super) mod tracked;
pub(super) mod worker_metrics;
pub(super) mod worker_runtime;
pub(super) mod worker_shared;

pub use abort::AbortedRequest;
#[cfg(feature = "__caps")]
pub use caps::Caps;
pub use limits::{HalfClose, Limits};
pub use outcome::{EndedRequest, RequestOutcome};
pub use server_metrics::{ConnectionStats, RequestStats};

pub(crate) use idle_policy::EvictionGrace;
#[cfg(feature = "metrics")]
pub(crate) use latency::{BOUNDS, LatencySum};
pub(crate) use outcome::OutcomeObserver;
pub(crate) use outstanding::Outstanding;
pub(crate) use state::{CloseRaces, ServerConfig, ServerState, millis};
pub(crate) use tracked::{Kind, WorkOrigin};
#[cfg(feature = "metrics")]
pub(crate) use worker_runtime::RuntimeMetrics;
pub(crate) use worker_runtime::WorkerRuntime;
