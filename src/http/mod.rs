//! One connection, one request.
//!
//! A worker accepts connections and keeps each in a [`berth`]. A [`connection`] is ours from accept to close. What is [`plain`] is
//! answered by ourselves ([`direct`]), also while its connection is parked [`deep`], without a task; for all else hyper is a guest, and
//! what the guest does is seen through the [`link`]. Every [`request`] has one fate (P5).

mod announcement;
mod answer;
mod authority;
mod berth;
mod body;
mod body_wait;
mod connection;
mod context;
mod counts;
mod crew;
mod date;
mod deadlines;
mod deep;
mod direct;
mod drain_class;
#[cfg(feature = "axum")]
mod extract;
mod framing;
mod guest_io;
mod http1;
mod http2;
mod idle_policy;
mod inflow;
#[cfg(feature = "metrics")]
mod latency;
mod limits;
mod line;
mod lingering;
mod link;
mod outstanding;
mod parked;
mod patience;
mod piece;
mod plain;
mod request;
mod route_timeout;
mod runtime;
mod service;
mod settling;
mod side;
mod sniff;
mod streams;
mod tally;
mod test_host;
mod timer;
mod tower_service;
mod worker;

pub use body::Body;
pub use context::RequestContext;
pub use drain_class::DrainClass;
#[cfg(feature = "axum")]
pub use extract::MissingRequestContext;
pub use limits::{HalfClose, Limits};
pub use request::CancelCause;
pub use route_timeout::{RouteTimeout, RouteTimeoutService};
pub use service::HttpService;
pub use side::AbortedRequest;
pub use tally::{ConnectionTally, RequestTally};
pub use test_host::TestHost;
pub use tower_service::{IntoHttpService, OfPeers, OfRequests, TowerMakeService, TowerService};

pub(crate) use crew::Crew;
pub(crate) use idle_policy::EvictionGrace;
#[cfg(feature = "metrics")]
pub(crate) use latency::{BOUNDS, LatencySum};
pub(crate) use outstanding::{Kind, Outstanding, TrackedWork};
pub(crate) use runtime::WorkerRuntime;
pub(crate) use service::BoxError;
pub(crate) use settling::Sealing;
pub(crate) use side::{CloseRaces, Side, SideConfig, WorkOrigin, millis};
pub(crate) use worker::{CrewParts, Order, work, work_and_stay};
