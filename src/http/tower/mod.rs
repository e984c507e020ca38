//! tower services, hosted as HTTP services.

#[cfg(feature = "axum")]
mod extract;
mod route_timeout;
mod service;

#[cfg(feature = "axum")]
pub use extract::MissingRequestContext;
pub use route_timeout::{RouteTimeout, RouteTimeoutService};
pub use service::{IntoHttpService, OfPeers, OfRequests, TowerMakeService, TowerService};
