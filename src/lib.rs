//! An HTTP host that loses no request in a deploy, always exits in bounded time, and proves both.
//!
//! A *lame duck* is a server that has stopped asking for traffic but still serves all it gets. Hand this crate an axum
//! `Router`, a tower or a hyper service, and get the whole life of a process:
//!
//! ```text
//!             bound, start hooks done      stop request       lame duck over        nothing left, or drain over
//!  Starting ───────────────▶ Serving ───────────▶ LameDuck ───────────▶ Draining ───────────▶ Cancelling ──▶ CleaningUp ──▶ Stopped
//!  ready      503             200 (checks)         503                   503                   503            503
//!  serving    503             200 (checks)         200                   503                   503            503
//!  alive      200             200                  200                   200                   200            200
//!  listeners  reserved        open                 open                  quiesced, closed      –              –
//!  requests   –               served               served, told to go    finish                cancelled      –
//! ```
//!
//! ```no_run
//! use axum::{Extension, Router, routing::get};
//! use lameduck::{Check, Hook, Host, RequestContext, Settings};
//!
//! async fn hello(Extension(context): Extension<RequestContext>) -> String {
//!     format!("hello from {} with {:?} left", context.app_version(), context.remaining())
//! }
//!
//! fn main() -> ! {
//!     lameduck::main(
//!         || {
//!             let router = Router::new().route("/", get(hello));
//!             Ok(Host::builder()
//!                 .settings(Settings::from_env()?)
//!                 .hook(Hook::on_stop("database", || async { Ok::<(), std::io::Error>(()) }))
//!                 .readiness_check(Check::new("database", || async { Ok::<(), std::io::Error>(()) }))
//!                 .tower(router))
//!         },
//!         |_report| {},
//!     )
//! }
//! ```
//!
//! [`main`] owns the process: a runtime a core, a thread for the probes, a watchdog. [`Host::run`] lives inside your own tokio
//! runtime and returns the [`Report`]. [`Host::run_in`] lives in any world that implements [`runtime`]: that is how a simulation
//! replays signals, slow requests and timeouts against the very same host.
//!
//! # What it promises
//!
//! | | |
//! |---|---|
//! | P1 | **Forward only.** A process never goes back to an earlier [`Phase`](lifecycle::Phase), and a deadline never moves later. |
//! | P2a | **Ready means "send me traffic".** `/readiness` is 200 only while Serving, and every [`Check`] passes. |
//! | P2b | **Serving means "I respond to what arrives".** `/serving` is 200 until the listeners start to close. |
//! | P3 | **Alive to the last.** `/liveness` is 200 until the internal server closes, last of all; a wedged worker is the one exception. |
//! | P4 | **A lame duck serves.** For its whole delay everything is served, and clients are told to go. |
//! | P5 | **One fate per request.** Finished, timed out, aborted or gone; nothing that was cut looks whole. |
//! | P6 | **No straggler holds the exit.** Idle, silent, slow and upgraded connections are bounded. |
//! | P7 | **Bounded.** Stop request to exit takes at most [`Plan::worst_case`](lifecycle::Plan::worst_case); a watchdog enforces it. |
//! | P8 | **Prompt.** The moment nothing is left to wait for, the next phase begins. |
//! | P9 | **A deadline per request.** Every handler gets a [`RequestContext`] derived from the host's root. |
//! | P10 | **Cancel after drain, clean up after cancel.** |
//! | P11 | **Hooks.** In pairs, in order, within budgets, whatever another one does. |
//! | P12 | **Impatience is heard.** A further SIGINT or SIGQUIT ends the current wait. |
//! | P13 | **The exit tells the truth.** A typed [`Report`], and an exit code that follows from it. |
//! | P14 | **A failed start is loud.** |
//! | P15 | **Contained.** A panic costs its request; a dead log reader costs nothing. |
//! | P16 | **Separate.** Probes have a thread of their own. |
//! | P17 | **Replayable.** The same seed gives the same trace. |
//!
//! # Features
//!
//! None is on by default. A feature adds; enabling one changes nothing that is there without it.
//!
//! | | |
//! |---|---|
//! | `axum` | [`RequestContext`] is an extractor: `async fn handler(context: RequestContext)`. It depends on axum-core alone. |
//! | `cli` | The settings as clap flags, and log output that no reader can hold up: `lameduck::cli`. |
//! | `metrics` | `GET /metrics` on the internal server, as OpenMetrics or in the classic text format; `docs/metrics.md` has the table. |
//! | `systemd` | `Builder::systemd`: on Linux, readiness and the watchdog by `NOTIFY_SOCKET`, and the sockets of `LISTEN_FDS`. |

extern crate alloc;

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
mod http;
mod internal;
pub mod lifecycle;
mod log;
#[cfg(unix)]
pub mod os;
#[cfg(unix)]
mod process;
mod readiness;
mod report;
pub mod runtime;
mod settings;
#[cfg(all(feature = "systemd", target_os = "linux"))]
mod systemd;
mod unwind;
mod user_tasks;

#[cfg(feature = "axum")]
pub use crate::http::MissingRequestContext;
pub use crate::http::{
    AbortedRequest, Body, CancelCause, ConnectionStats, HalfClose, HttpService, IntoHttpService,
    Limits, OfPeers, OfRequests, RequestContext, RequestStats, RouteTimeout, RouteTimeoutService,
    StreamShutdown, TestHost, TowerMakeService, TowerService,
};
pub use background::TaskContext;
pub use hook::Hook;
pub use host::{BoundAddresses, Builder, Host, ShutdownHandle};
#[cfg(unix)]
pub use process::main;
pub use readiness::Check;
pub use report::{HookReport, Report};
pub use settings::{PortSharing, SETTINGS, Setting, Settings, SettingsError, parse_duration};
