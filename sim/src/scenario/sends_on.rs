//! What a client goes on sending when its connection is at its end.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A client that sends one request, and goes on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendsOn {
    /// What it sends.
    pub what: SentOn,
    /// Pause after the response, before empty lines.
    #[serde(default, skip_serializing_if = "super::traffic::is_zero")]
    pub after_ms: u64,
    /// Pause before each piece.
    pub every_ms: u64,
}

/// What a client goes on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SentOn {
    /// The rest of its request, whose response came early and announced the close.
    Body,
    /// Letters, after the host has closed the idle connection.
    Letters,
    /// Empty lines, which are no request (RFC 9112 §2.2).
    EmptyLines,
}

impl SendsOn {
    /// Returns one piece.
    #[must_use]
    pub const fn piece(self) -> &'static [u8] {
        match self.what {
            SentOn::Body | SentOn::Letters => b"x",
            SentOn::EmptyLines => b"\r\n",
        }
    }

    /// Returns the pause after the response.
    #[must_use]
    pub const fn after(self) -> Duration {
        Duration::from_millis(self.after_ms)
    }

    /// Returns the pause before each piece.
    #[must_use]
    pub const fn every(self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}
