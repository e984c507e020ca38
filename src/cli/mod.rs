//! Modules of the binary alone: flags and environment, log output, and the service it hosts.

pub mod args;
pub mod drill;
pub mod logging;
pub mod plan;
mod readable;
