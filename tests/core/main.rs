//! Checks the pure core against the promises, through its public API alone.
//!
//! - [`table`]: every transition, as a text and a diagram to review.
//! - [`explore`]: every reachable state, times every event, times the edges of every wait.
//! - [`random`]: random runs against [`model`], a naive model that was written from the promises.
//! - [`plan`]: budgets and their refusal, by example.
//! - [`stories`]: former bugs, each with its story.
//! - [`messages`]: names and numbers in logs, metrics and exit codes.
//!
//! [`checker`] observes a run from outside and asserts the promises; [`common`] drives it. Neither
//! reads the machine's private state.

mod checker;
mod common;
mod explore;
mod messages;
mod model;
mod plan;
mod random;
mod stories;
mod table;
