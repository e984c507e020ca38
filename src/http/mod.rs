//! HTTP/1 and HTTP/2 connections and their requests.
//!
//! Five floors; imports go down only:
//!
//! | floor | folder | subject |
//! |---|---|---|
//! | 5 | [`worker`] | one core: accept loop, commands, sweep, handshake wait |
//! | 4 | [`connection`] | one connection from accept to close |
//! | 3 | [`fast_path`] | simple `GET` requests without hyper |
//! | 2 | [`exchange`], [`tower`] | one request and its response |
//! | 1 | [`server`] | state shared by all connections of a server |

mod connection;
mod exchange;
mod fast_path;
mod server;
mod test_host;
mod tower;
mod worker;

pub use exchange::{Body, CancelCause, HttpService, RequestContext, StreamShutdown};
#[cfg(feature = "__caps")]
pub use server::Caps;
pub use server::{
    AbortedRequest, ConnectionStats, EndedRequest, HalfClose, Limits, RequestOutcome, RequestStats,
};
pub use test_host::TestHost;
#[cfg(feature = "axum")]
pub use tower::MissingRequestContext;
pub use tower::{
    IntoHttpService, OfPeers, OfRequests, RouteTimeout, RouteTimeoutService, TowerMakeService,
    TowerService,
};

pub(crate) use connection::worker_context::WorkerContext;
pub(crate) use exchange::BoxError;
#[cfg(feature = "metrics")]
pub(crate) use server::{BOUNDS, LatencySum, RuntimeMetrics};
pub(crate) use server::{
    CloseRaces, EvictionGrace, Kind, OutcomeObserver, Outstanding, ServerConfig, ServerState,
    WorkOrigin, WorkerRuntime, millis,
};
pub(crate) use worker::{SealBarrier, WorkerCommand, WorkerParts, run, run_until_released};
