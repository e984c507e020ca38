//! A chunk of a response body that records how much of it is written.
//!
//! h2 takes a chunk long before the client's window allows all of it to be sent, and it discards
//! what it still holds when the stream is reset. So an HTTP/2 response is *finished* only once
//! every byte of its chunks was written; if a byte was discarded, it was not sent in full. On
//! HTTP/1 everything that hyper took and flushed has been sent, so its chunks are not tracked.

use super::{connection_state::Protocol, request_state::RequestState};
use bytes::{Buf, Bytes};
use std::sync::Arc;

/// Bytes of a response body. hyper advances them as it writes them.
#[derive(Debug)]
pub(crate) struct TrackedChunk {
    bytes: Bytes,
    /// The request, if the chunk is tracked.
    watched: Option<Arc<RequestState>>,
}

impl TrackedChunk {
    /// Returns a chunk of a response. `ends`: hyper sends the end of the stream together with it.
    pub(super) fn of(request: Option<&Arc<RequestState>>, bytes: Bytes, ends: bool) -> Self {
        let watched =
            request.filter(|request| request.connection.protocol == Protocol::Http2).cloned();
        if let Some(request) = &watched {
            request.on_buffered(bytes.len());
            if ends && !bytes.is_empty() {
                request.progress.record_last_chunk();
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
