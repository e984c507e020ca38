//! An HTTP host that loses no request during a deploy, exits within a bound, and proves both.
//!
//! A *lame duck* is a server that has stopped asking for traffic but still serves all it gets.
//! This crate runs an axum, tower, hyper or tonic service through the whole lifecycle of its
//! process: start hooks, probes, signals, a graceful close of every connection, stop hooks, and an
//! exit code that says whether anything was lost.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use lameduck::{Host, Settings};
//!
//! fn main() {
//!     lameduck::run(|| {
//!         let router = Router::new().route("/", get(|| async { "hello world" }));
//!         Ok(Host::builder(Settings::from_env()?).serve(router))
//!     })
//! }
//! ```
//!
//! That is a complete service. It listens on port 8080 and serves its probes on port 8081. After
//! SIGTERM it is a lame duck for 5 s, drains for at most 10 s, and exits with 0 if no request was
//! cut. `docs/from-axum-serve.md` in the repository shows the change from `axum::serve`.
//!
//! The host logs through `tracing`. Without a subscriber, as here, only a failure is printed, as
//! one line. `lameduck::cli::logging::install` (feature `cli`) installs one that never blocks.
//!
//! # The phases of a process
//!
//! They follow each other in this order, and none returns. A stop before Serving goes straight to
//! CleaningUp.
//!
//! | phase | `/readiness` | `/serving` | `/liveness` | listeners | requests |
//! |---|---|---|---|---|---|
//! | Starting | 503 | 503 | 200 | reserved | – |
//! | Serving | 200 | 200 | 200 | open | served |
//! | LameDuck | 503 | 200 | 200 | open | served; connections announce their close |
//! | Draining | 503 | 503 | 200 | closed, none lost | in flight ones finish |
//! | Cancelling | 503 | 503 | 200 | – | cancelled, then cut |
//! | CleaningUp | 503 | 503 | 200 | – | – |
//!
//! # The parts of a service
//!
//! | you add | with | promise |
//! |---|---|---|
//! | addresses, time limits, limits on clients | [`Settings`] | P7, P9, P15 |
//! | a pool to open before and close after | [`Hook`] | P11 |
//! | a condition for traffic | [`ReadinessCheck`] | P2 |
//! | a consumer or a scheduler | [`BackgroundTask`] | P10 |
//! | work that outlives its response | [`RequestContext::spawn`] | P10 |
//! | a deadline for one route | [`RouteTimeout`] | P9 |
//! | the end of a long stream | [`StreamShutdown`] | P5 |
//! | conditions for the simulation to check | [`always!`], [`sometimes!`] | – |
//!
//! A handler finds its [`RequestContext`] in the request extensions: deadline, cancellation, phase.
//! [`TestHost`] makes contexts for unit tests of handlers.
//!
//! # Where it runs
//!
//! [`run`] owns the process: one single-threaded runtime per core, a thread for the probes, a
//! watchdog. [`Host::run`] has the same features inside your tokio runtime, with its work stealing,
//! and returns the [`Report`]. [`Host::run_in`] runs the same host in any environment
//! that implements [`runtime`]. The crate `lameduck-sim` does so to replay signals, slow clients,
//! timeouts and faults by seed; it tests this host, and your service.
//!
//! # What it promises
//!
//! `docs/promises.md` in the repository lists the promises, P1 to P17, and for each the code that
//! keeps it and the tests that fail without it. In short: a process never returns to an earlier
//! phase (P1); everything that arrives during the lame duck delay is served (P4); every request has
//! exactly one outcome, and nothing that was cut looks complete (P5); the shutdown takes at most
//! [`Plan::worst_case`](lifecycle::Plan::worst_case), enforced by a watchdog (P7), and no longer
//! than needed (P8); a panic costs only its request (P15); probes respond whatever the main server
//! does (P16). Documents and reports cite these numbers.
//!
//! # When not to use it
//!
//! - For a process that is not a server, or that is never stopped while it serves.
//! - On Windows, or for HTTP/3.
//! - For a program that may be killed at any moment anyway and whose clients retry every request.
//! - As a web framework: routing, body limits, compression and request ids belong to axum and
//!   tower-http.
//!
//! Linux is the main platform. On other Unixes new connections arrive until the listeners close, so
//! a connection may be refused at that moment.
//!
//! # Features
//!
//! None is on by default. A feature adds; enabling one changes nothing that is there without it.
//!
//! - `axum`: [`RequestContext`] is an axum extractor: `async fn handler(context: RequestContext)`.
//! - `cli`: the settings as clap flags, and log output that does not block: `lameduck::cli`.
//! - `metrics`: `GET /metrics` on the internal server, as OpenMetrics or in the classic text
//!   format. `docs/metrics.md` has the table.
//! - `profiles`: `Builder::profiles`: on Linux, CPU profiles for `go tool pprof` and as flame
//!   graphs, at `/debug/pprof/` of the internal server.
//! - `proxy-protocol`: the PROXY protocol of load balancers, with TLS or without:
//!   [`Settings::proxy_protocol_addresses`].
//! - `tls`: TLS on the main server, by rustls: [`Builder::tls`], [`Settings::tls_files`].
//!   `tls-ring` and `tls-aws-lc-rs` add a provider of cryptography; with both, ring is used.
//! - `systemd`: `Builder::systemd`: on Linux, readiness and the watchdog by `NOTIFY_SOCKET`, and
//!   the sockets of `LISTEN_FDS`.
//!
//! # Public dependencies
//!
//! Public items use types of bytes, http, http-body, hyper, serde_json and tokio, all at 1.x. Some
//! items of 0.x crates are public on purpose. A new major version of one of these crates is a new
//! major version of this crate:
//! - [`CancellationToken`] of tokio-util 0.7, re-exported here;
//! - the traits `tower_service::Service` 0.3 and `tower_layer::Layer` 0.3, which
//!   [`Builder::serve`] and [`RouteTimeout`] implement or take;
//! - the extractor traits of axum-core 0.5, with the feature `axum`;
//! - the crate prometheus-client 0.25, re-exported here, with the feature `metrics`;
//! - `ServerConfig` of rustls 0.23, with the feature `tls`.

extern crate alloc;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[doc(hidden)]
pub mod assertions;
mod background;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "__drill")]
#[doc(hidden)]
pub mod drill;
mod driver;
mod errors;
mod hook;
mod host;
mod host_config;
mod host_error;
#[cfg(feature = "tls")]
mod host_tls;
mod http;
mod internal;
pub mod lifecycle;
mod log;
#[cfg(unix)]
pub mod os;
#[cfg(unix)]
mod process;
#[cfg(feature = "proxy-protocol")]
mod proxy_protocol;
mod readiness;
mod report;
pub mod runtime;
mod settings;
#[cfg(all(feature = "systemd", target_os = "linux"))]
mod systemd;
#[cfg(feature = "tls")]
mod tls;
mod unwind;
mod user_tasks;

#[cfg(feature = "__caps")]
#[doc(hidden)]
pub use crate::http::Caps;
#[cfg(feature = "axum")]
pub use crate::http::MissingRequestContext;
pub use crate::http::{
    AbortedRequest, Body, CancelCause, ConnectionStats, EndedRequest, HalfClose, HttpService,
    IntoHttpService, Limits, OfPeers, OfRequests, RequestContext, RequestOutcome, RequestStats,
    RouteTimeout, RouteTimeoutService, StreamShutdown, TestHost, TowerMakeService, TowerService,
};
pub use background::{BackgroundTask, TaskContext};
pub use hook::Hook;
pub use host::{Builder, Host};
pub use host_config::{BoundAddresses, ShutdownHandle};
pub use host_error::{HostError, HostErrorKind, TaskError};
#[cfg(unix)]
pub use process::{RunOptions, run, run_with};
#[cfg(feature = "metrics")]
pub use prometheus_client;
pub use readiness::ReadinessCheck;
pub use report::{HookReport, Report};
pub use settings::{
    ParseDurationError, PortSharing, SETTINGS, Setting, Settings, SettingsError, parse_duration,
};
pub use tokio_util::sync::CancellationToken;
