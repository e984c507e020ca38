//! Requests that are served without hyper.

pub(super) mod codec;
mod gathered;
pub(super) mod serve;
