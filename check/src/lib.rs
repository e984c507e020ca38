//! Grades the shutdown of any HTTP server process, in any language.
//!
//! A scenario starts the server, opens connections in a certain state, requests the stop, and
//! compares what arrives with what the HTTP RFCs, the platform and careful operators expect. It
//! sees only the server's command line, its responses and its exit.
//!
//! ```text
//!  command line ──▶ Target ──┐                              ┌──▶ human, JSON, JUnit, TAP, Markdown
//!                            ├──▶ grading: repetitions ──▶ Report
//!  scenarios, by family ─────┘        │                     └──▶ evidence: timelines and bytes
//!                                     ▼
//!                    Trial: a Server, its clients, what was expected of each
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "a harness outside the host: it lives in real time, and its threads end with it"
)]
#![expect(
    clippy::print_stderr,
    clippy::disallowed_macros,
    reason = "a command whose output is its purpose"
)]

pub mod balancer;
pub mod cli;
pub mod compare;
pub mod evidence;
pub mod formats;
pub mod grading;
pub mod load;
pub mod port;
pub mod probe;
pub mod process;
pub mod progress;
pub mod restarts;
pub mod rollout;
pub mod scenario;
pub mod scenarios;
pub mod server;
pub mod stop_lag;
pub mod target;
pub mod tls;
pub mod trial;
