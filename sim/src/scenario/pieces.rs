//! Heads that come in pieces, after other requests on the same connection, and heads with many
//! fields.

use crate::client::{RecordParts, RequestSpec};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Header fields that a client adds to each of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFields {
    /// Number of fields.
    pub count: u64,
    /// Length of each value.
    pub bytes: usize,
}

impl ExtraFields {
    pub(super) fn add_to(self, ask: RequestSpec) -> RequestSpec {
        let value = "v".repeat(self.bytes);
        (0..self.count).fold(ask, |ask, n| ask.with(&format!("x-{n}"), &value))
    }
}

/// A request whose head comes in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadInPieces {
    /// Number of whole requests before it on the same connection.
    pub earlier: u64,
    /// Pause after the response before it; `None` if its first piece is in the same write as the
    /// last whole request.
    pub idle_ms: Option<u64>,
    /// Pause within the head of that last whole request, in milliseconds.
    #[serde(default, skip_serializing_if = "super::traffic::is_zero")]
    pub before_ms: u64,
    /// Number of pieces, if the head has as many bytes.
    pub pieces: u64,
    /// Bytes of one more piece, which comes first; 0 if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first: usize,
    /// Pause before each piece but the first.
    pub every_ms: u64,
    /// Whether the last piece comes.
    pub is_whole: bool,
    /// Whether the pieces are parts of one record, with TLS and in a separate write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_one_record: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl HeadInPieces {
    /// Returns the pieces of a request whose head has `head` bytes. A body is in the last one.
    #[must_use]
    pub fn pieces(self, request: &[u8], head: usize) -> Vec<Vec<u8>> {
        let (first, rest) = request[..head].split_at(self.first.min(head / 2));
        let count = usize::try_from(self.pieces).unwrap_or(usize::MAX).clamp(2, head.max(2));
        let length = rest.len().div_ceil(count).max(1);
        let mut pieces: Vec<Vec<u8>> = rest.chunks(length).map(<[u8]>::to_vec).collect();
        if !first.is_empty() {
            pieces.insert(0, first.to_vec());
        }
        if self.is_whole {
            pieces.last_mut().into_iter().for_each(|last| last.extend_from_slice(&request[head..]));
        } else {
            pieces.pop();
        }
        pieces
    }

    /// Returns how a record arrives in as many parts as there are `pieces`.
    #[must_use]
    pub fn parts(self, pieces: usize) -> RecordParts {
        let every = Duration::from_millis(self.every_ms);
        let count = pieces + usize::from(!self.is_whole);
        RecordParts { count, every, is_whole: self.is_whole }
    }

    /// Returns the time from the first of `pieces` to the last.
    #[must_use]
    pub fn lasts(self, pieces: usize) -> Duration {
        Duration::from_millis(self.every_ms * (pieces as u64).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::HeadInPieces;

    #[test]
    fn the_pieces_are_the_request_and_without_the_last_one_they_are_no_head() {
        let request = b"POST / HTTP/1.1\r\n\r\nbody";
        let head = request.len() - 4;
        for (pieces, first) in [(0, 0), (2, 0), (3, 0), (7, 0), (1_000, 0), (2, 1), (1_000, 3)] {
            let whole = HeadInPieces {
                earlier: 1,
                idle_ms: None,
                before_ms: 0,
                pieces,
                first,
                every_ms: 1,
                is_whole: true,
                in_one_record: false,
            };
            assert_eq!(whole.pieces(request, head).concat(), request);
            let part = HeadInPieces { is_whole: false, ..whole }.pieces(request, head).concat();
            assert!(request[..head].starts_with(&part) && !part.is_empty() && part.len() < head);
        }
    }
}
