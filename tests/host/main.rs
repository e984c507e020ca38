//! The host in this process, over memory and over real sockets: no child process, no signal, no
//! limit of the process. What needs one of these is in `tests/process`.

#[path = "../support/mod.rs"]
mod support;

mod app_reload;
mod background;
mod bodies;
mod builder;
mod connection_age;
mod date;
mod early_stop;
mod fast_path;
#[cfg(feature = "axum")]
mod grpc;
mod hooks;
mod http1;
mod idle;
mod idle_set;
#[cfg(feature = "axum")]
mod internal_routes;
mod late_results;
#[cfg(feature = "axum")]
mod late_work;
#[cfg(feature = "metrics")]
mod metrics;
mod os;
mod outcomes;
mod outstanding;
#[cfg(feature = "proxy-protocol")]
mod proxy_protocol;
#[cfg(feature = "axum")]
mod streams;
mod timeouts;
#[cfg(feature = "tls-ring")]
mod tls;
mod tonic;
#[cfg(feature = "axum")]
mod tower;
#[cfg(feature = "axum")]
mod upgrades;
mod workers;
