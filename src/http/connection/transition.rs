//! State transitions of a connection.

use super::lingering::{Lingered, Lingering};
use crate::http::{exchange::http_service::HttpService, fast_path::serve::HyperHandoff};
use crate::{lifecycle::Moment, runtime::Address};
use bytes::Bytes;

/// The transition that a state requests after a poll.
pub(super) enum Transition<T, S: HttpService> {
    /// Stay in this state until woken.
    Wait,
    /// The steps that precede HTTP are done, and a proxy may have announced the client's address.
    /// Wait for the first request.
    Opened(T, Option<Address>),
    /// Wait without a protocol. The bytes that were read are at most half an empty line. The
    /// connection has been idle since this moment.
    Park(T, Bytes, Moment),
    /// Serve HTTP/1. These bytes were read; part of a head among them has waited since this moment.
    StartHttp1(T, Bytes, Moment),
    /// Serve HTTP/1 with hyper, where the fast path stopped.
    ResumeHttp1(T, Box<HyperHandoff<S>>),
    /// Serve HTTP/2. These bytes were read.
    StartHttp2(T, Bytes),
    /// Move into the idle set, without a task. The connection has waited since this moment.
    Suspend(T, Moment, ReceivedAny),
    /// Close without losing a response.
    Linger(Box<Lingering<T>>),
    /// Drop the connection.
    Close,
    /// Drop the connection with a reset, because a response was cut.
    Reset,
}

impl<T, S: HttpService> Transition<T, S> {
    pub(super) fn linger(lingering: Lingering<T>) -> Self {
        Self::Linger(Box::new(lingering))
    }
}

/// Whether the client has ever sent anything but empty lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceivedAny {
    No,
    /// Its part of a handshake. The wait for its first byte begins at the end of the handshake.
    Handshake,
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
