//! The internal server: what the world must not see. Answered from the published phase, on a thread of its own (P16).
//!
//! | path | answer |
//! |---|---|
//! | `/liveness`, `/livez` | 200 as long as this server listens, unless a worker is wedged (P3) |
//! | `/readiness`, `/readyz` | 200 while Serving and every check passes, else 503 with the reason (P2) |
//! | `/serving` | 200 from Serving to the end of the lame duck delay while every check passes and no worker is wedged (P2b) |
//! | `/startupz` | 200 once Serving was reached |
//! | `/status` | what the process knows of itself, as JSON |
//! | `/metrics` | the same and more for Prometheus, behind the feature `metrics` |
//!
//! Requests that are directed to a name which was not configured get a 421 ([`AllowedHosts`]). No built-in route changes anything.
//!
//! Users mount routes of their own beside these. It runs on the same engine as the main server, and has a drain of its own.

mod hosts;
#[cfg(feature = "metrics")]
mod metrics;
mod routes;
mod status;
mod wedge;

pub(crate) use hosts::AllowedHosts;
#[cfg(feature = "metrics")]
pub(crate) use metrics::Metrics;
pub(crate) use routes::{InternalRoute, InternalService, route};
pub(crate) use status::HostStatus;
pub(crate) use wedge::{Heartbeats, watch};
