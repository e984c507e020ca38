//! Requests that are served without hyper.

pub(super) mod codec;
pub(super) mod serve;
