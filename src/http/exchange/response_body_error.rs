//! Why a response body failed.

use super::http_service::AppError;
use crate::http::server::abort::AbortCause;
use std::{error::Error, fmt};

/// The error of a response body.
#[derive(Debug)]
pub(crate) enum ResponseBodyError {
    Handler(AppError),
    Panicked,
    /// The body ended this number of bytes before the length that its head promised.
    Short(u64),
    /// The body has more bytes than its head promised.
    Long,
    Cut,
    /// The deadline of a gRPC call has passed.
    CallDeadline,
}

impl ResponseBodyError {
    pub(super) const fn abort_cause(&self) -> AbortCause {
        match self {
            Self::Cut => AbortCause::Shutdown,
            Self::Handler(_)
            | Self::Panicked
            | Self::Short(_)
            | Self::Long
            | Self::CallDeadline => AbortCause::Body,
        }
    }
}

impl fmt::Display for ResponseBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => write!(f, "the response body failed: {error}"),
            Self::Panicked => f.write_str("the response body panicked"),
            Self::Short(missing) => {
                write!(f, "the response body ended {missing} bytes before its content-length")
            }
            Self::Long => f.write_str("the response body is longer than its content-length"),
            Self::Cut => f.write_str("the response was cut by the shutdown"),
            Self::CallDeadline => f.write_str("the deadline of the call has passed"),
        }
    }
}

impl Error for ResponseBodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Handler(error) => error.get(),
            Self::Panicked | Self::Short(_) | Self::Long | Self::Cut | Self::CallDeadline => None,
        }
    }
}
