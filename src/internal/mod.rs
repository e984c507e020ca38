//! The internal server: the endpoints that must not be public. It responds from the published
//! phase, on its own thread (P16).
//!
//! | path | response |
//! |---|---|
//! | `/liveness`, `/livez` | 200 while this server listens, unless a worker is wedged (P3) |
//! | `/readiness`, `/readyz` | 200 while Serving and every check passes, else 503 with the reason (P2) |
//! | `/serving` | 200 from Serving to the end of the lame duck delay while every check passes and no worker is wedged (P2b) |
//! | `/startupz` | 200 once Serving was reached |
//! | `/` | the state of the process, as a page for a browser |
//! | `/status` | the same as JSON |
//! | `/metrics` | the same and more for Prometheus, with the feature `metrics` |
//! | `/debug/pprof/` | profiles, with the feature `profiles` and by a call |
//!
//! Requests for a host name that was not configured get a 421 ([`AllowedHosts`]). No built-in route
//! changes the state of the process. A profile costs CPU time, and only one is taken at a time, so
//! a browser's request for a page of another site gets a 403 in its place.
//!
//! Users can mount their own routes in addition. The internal server runs on the same engine as the
//! main server, and has its own drain.

mod hosts;
#[cfg(feature = "metrics")]
mod metrics;
mod page;
#[cfg(feature = "profiles")]
mod profiles;
mod response;
mod routes;
mod status;
mod wedge;

pub(crate) use hosts::AllowedHosts;
#[cfg(feature = "metrics")]
pub(crate) use metrics::{AppMetrics, Metrics};
#[cfg(feature = "profiles")]
pub(crate) use profiles::Profiles;
pub(crate) use routes::{InternalRoute, InternalService, route};
#[cfg(feature = "metrics")]
use status::connections_by_state;
pub(crate) use status::{HookRunning, HostStatus};
pub(crate) use wedge::{Heartbeats, watch};
