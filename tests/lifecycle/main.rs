//! The pure core held against the promises, through its public API alone.
//!
//! - [`table`]: every transition, as a text and a diagram to review.
//! - [`explore`]: every state that can be reached, times every event, times the edges of every wait.
//! - [`random`]: random lives against [`model`], a naive model that was written from the promises.
//! - [`plan`]: budgets and their refusal, by example.
//! - [`stories`]: bugs that were, each with its story.
//! - [`words`]: names and numbers that others read.
//!
//! [`checker`] watches a life from outside and knows the promises; [`common`] drives it. Neither looks into the machine.

mod checker;
mod common;
mod explore;
mod messages;
mod model;
mod plan;
mod random;
mod stories;
mod table;
