//! Whole deploys: old and new processes side by side, a platform that routes requests to them with
//! its own delays, and clients with and without retries.
//!
//! ```text
//! clients ── node: which processes get requests? ──▶ host 0: old process, or its successor
//!              ▲ with a lag                      ├─▶ host 1
//!  platform: starts, probes, withdraws, stops ───┴─▶ host 2 …
//! ```
//! [`Trials::deploy`](super::Trials::deploy) deploys a service on lameduck, and checks:
//!
//! - D1, **no acknowledged write is lost.** Each write with a key that got the response that its
//!   client expects, with a status below 400 except 304, 307 and 308, is in a [`Ledger`]. A write
//!   is a `POST`, `PUT`, `PATCH` or `DELETE` with `{key}` in its target, header values or body;
//!   clients replace it by a name of the request, which stays the same when they send it again.
//!   Requests that follow each other ([`Request::then`](crate::Request::then)) have different
//!   names.
//! - D2, **no write is applied twice.** No ledger has a key twice.
//! - D3, **every message is acknowledged once or delivered again.** No message of a ledger is
//!   acknowledged twice, and none that was delivered before the deploy ended is left without an
//!   end some seconds after it.
//! - D4, **nothing is used after its stop hook ran.** No process uses a [`Resource`] that it has
//!   closed.
//! - D5, **no client sees an avoidable error.** Each client gets a complete response that it
//!   expects, with the body that it expects, unless the [`Platform`] makes that impossible: nothing
//!   listens in a restart without a balancer, a downstream fails, or a connection was not used in
//!   the whole lame duck delay, so that its close could not be announced.
//! - D6, **the deploy ends.** Each new process becomes ready, and each old one exits before its
//!   platform kills it. A process that exits before it was ready is started again after a pause,
//!   as by the kubelet or systemd.
//!
//! No exit of a process is judged: a deploy of a service with
//! [`Trial::at_exit`](super::Trial::at_exit) or
//! [`Trial::except_tasks`](super::Trial::except_tasks) panics.
//!
//! Assertions hold in deploys, too, and each is reached (S7). Each request must succeed at least
//! once (S6).
//!
//! [`explore_server`] counts what any other server loses.

mod advice;
mod curve;
mod failure;
mod hosted;
mod judge;
mod listener;
mod losses;
mod platform;
mod play;
mod process;
mod proved;
mod records;
mod rollout;
mod rotation;
mod scenario;
mod server;
mod traffic;
mod trials;

pub use advice::{Advice, Point, advise};
pub use failure::DeployFailure;
pub use listener::{SimListener, SimStream, StopSignal};
pub use losses::Losses;
pub use platform::{BlueGreen, Deploy, Kubernetes, Platform, ProbePath, ProbingBalancer, Systemd};
pub use records::{Ledger, Resource};
pub use scenario::{DeployClient, DeployScenario, Retries};
pub use server::{ServerTrials, explore_server};
pub use trials::DeployTrials;
