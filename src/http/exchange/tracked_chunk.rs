//! A piece of an answer's body on its way through hyper, which shows what becomes of it.
//!
//! HTTP/2 takes a piece long before the client's window lets it send all of it, and throws away what it still holds of a stream that
//! is reset. So an HTTP/2 answer is *finished* only once each of its pieces was written to the last byte; one of which a byte was
//! thrown away was not sent whole. With HTTP/1, what hyper took and flushed has left: its pieces are not watched.

use super::{connection_state::Protocol, request_state::RequestState};
use bytes::{Buf, Bytes};
use std::sync::Arc;

/// Bytes of a body. hyper advances them as it writes them.
#[derive(Debug)]
pub(crate) struct TrackedChunk {
    bytes: Bytes,
    /// Whose answer it is, if anybody keeps count.
    watched: Option<Arc<RequestState>>,
}

impl TrackedChunk {
    /// `ends`: hyper gives it the end of the stream.
    pub(crate) fn of(request: Option<&Arc<RequestState>>, bytes: Bytes, ends: bool) -> Self {
        let watched =
            request.filter(|request| request.connection.protocol == Protocol::Http2).cloned();
        if let Some(request) = &watched {
            request.on_buffered(bytes.len());
            if ends && !bytes.is_empty() {
                request.note_last_piece();
            }
        }
        Self { bytes, watched }
    }
}

impl Buf for TrackedChunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
        if let Some(request) = &self.watched {
            request.on_written(written);
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let bytes = self.bytes.copy_to_bytes(len);
        if let Some(request) = &self.watched {
            request.on_written(len);
        }
        bytes
    }
}

impl Drop for TrackedChunk {
    fn drop(&mut self) {
        if let Some(request) = &self.watched
            && self.bytes.has_remaining()
        {
            request.on_discarded(self.bytes.remaining());
        }
    }
}
