//! A piece of an answer's body on its way through hyper, which shows what becomes of it.
//!
//! HTTP/2 takes a piece long before the client's window lets it send all of it, and throws away what it still holds of a stream that
//! is reset. So an HTTP/2 answer is *finished* only once each of its pieces was written to the last byte; one of which a byte was
//! thrown away was not sent whole. With HTTP/1, what hyper took and flushed has left: its pieces are not watched.

use super::{link::Protocol, request::Request};
use bytes::{Buf, Bytes};
use std::sync::Arc;

/// Bytes of a body. hyper advances them as it writes them.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    /// Whose answer it is, if anybody keeps count.
    watched: Option<Arc<Request>>,
}

impl Piece {
    pub(crate) fn of(request: Option<&Arc<Request>>, bytes: Bytes) -> Self {
        let watched = request.filter(|request| request.link.protocol == Protocol::Http2).cloned();
        if let Some(request) = &watched {
            request.note_taken(bytes.len());
        }
        Self { bytes, watched }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
        if let Some(request) = &self.watched {
            request.note_written(written);
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let bytes = self.bytes.copy_to_bytes(len);
        if let Some(request) = &self.watched {
            request.note_written(len);
        }
        bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(request) = &self.watched
            && self.bytes.has_remaining()
        {
            request.note_thrown_away(self.bytes.remaining());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        env::{Address, Seed},
        http::{Limits, Side, SideConfig, link::Link, request::Sent},
        lifecycle::Moment,
        os::TokioClock,
    };
    use std::time::Duration;

    fn request() -> Arc<Request> {
        let config = SideConfig {
            app_version: "".into(),
            request_timeout: None,
            lame_duck: Duration::ZERO,
            limits: Limits::default(),
            when_full: crate::http::WhenFull::Wait,
            seed: Seed(0),
        };
        let side = Arc::new(Side::new(Arc::new(TokioClock::new()), config));
        let nowhere = Address::Unix(None);
        let link = Arc::new(Link::new(Protocol::Http2, nowhere.clone(), Arc::new(nowhere)));
        Arc::new(Request::new(side, link, Moment::EPOCH, http::Method::GET, http::Uri::default()))
    }

    #[test]
    fn an_answer_has_left_when_every_piece_was_written_to_its_last_byte() {
        let request = request();
        let (mut first, mut second) =
            (Piece::of(Some(&request), Bytes::from("hello ")), Piece::of(Some(&request), Bytes::from("world")));
        assert_eq!(request.sent(), Sent::NotYet);
        first.advance(6);
        drop(first);
        assert_eq!(request.sent(), Sent::NotYet);
        second.advance(2);
        assert_eq!(second.copy_to_bytes(3), "rld");
        assert_eq!(request.sent(), Sent::All);
    }

    #[test]
    fn an_answer_of_which_a_byte_was_thrown_away_was_never_sent_whole() {
        let request = request();
        let mut piece = Piece::of(Some(&request), Bytes::from("hello"));
        piece.advance(4);
        drop(piece);
        assert_eq!(request.sent(), Sent::NeverWhole);
    }
}
