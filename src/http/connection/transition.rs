//! What a connection becomes after a poll of its state.

use super::lingering::{Lingered, Lingering};
use crate::http::{exchange::service::HttpService, fast_path::serve::HyperHandoff};
use crate::lifecycle::Moment;
use bytes::Bytes;

/// What a state wants after it was polled.
pub(crate) enum Transition<T, S: HttpService> {
    /// To be polled again when woken.
    Wait,
    /// To wait without a protocol, having read these bytes, which are at most half an empty line.
    Park(T, Bytes),
    /// To speak HTTP/1, having read these bytes.
    StartHttp1(T, Bytes),
    /// To speak HTTP/1, where it was spoken without hyper so far.
    ResumeHttp1(T, Box<HyperHandoff<S>>),
    /// To speak HTTP/2, having read these bytes.
    StartHttp2(T, Bytes),
    /// To be parked deep, without a task: since when it waits, and whether it has ever sent anything.
    Suspend(T, Moment, ReceivedAny),
    /// To close without losing an answer.
    Linger(Box<Lingering<T>>),
    /// To be dropped.
    Close,
    /// To be dropped, and with it an answer that was cut: the drop resets it.
    Reset,
}

impl<T, S: HttpService> Transition<T, S> {
    pub(crate) fn linger(lingering: Lingering<T>) -> Self {
        Self::Linger(Box::new(lingering))
    }
}

/// Whether the client has ever sent anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceivedAny {
    No,
    Yes,
}

impl<T, S: HttpService> From<Lingered> for Transition<T, S> {
    fn from(lingered: Lingered) -> Self {
        match lingered {
            Lingered::Wait => Self::Wait,
            Lingered::Close => Self::Close,
            Lingered::Reset => Self::Reset,
        }
    }
}
