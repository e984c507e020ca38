//! Whether a connection owes a response that no request in flight stands for.

use crate::http::exchange::connection_state::ConnectionState;

/// The last response of a connection, which may be an error response in place of the handler's. Its
/// request is not in flight while it is written, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseDebt {
    Nothing,
    /// It is written in the next poll.
    Coming,
    /// hyper has written it, and has not flushed it yet.
    Written {
        /// The number of flushes before it was written.
        flushes: u64,
    },
}

impl ResponseDebt {
    /// Follows a poll of hyper, after which a response may be expected.
    pub(super) fn follow(&mut self, is_expected: bool, connection: &ConnectionState) {
        let io = &connection.io;
        *self = match *self {
            _ if is_expected => Self::Coming,
            Self::Coming if !io.is_flushed() => Self::Written { flushes: io.flushes() },
            // What is unflushed now was written later, such as responses to PINGs.
            Self::Written { flushes } if flushes == io.flushes() => Self::Written { flushes },
            Self::Nothing | Self::Coming | Self::Written { .. } => Self::Nothing,
        };
    }

    pub(super) fn is_open(self) -> bool {
        self != Self::Nothing
    }
}
