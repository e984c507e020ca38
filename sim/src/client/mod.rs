//! Clients, well-behaved and otherwise, over any byte stream. Each records the outcome of its
//! requests.
//!
//! ```text
//! asks ──▶ sent ──▶ head ──▶ completed          one of the last two ends every request
//!   └────────┴────────┴────▶ failed how=…
//! ```
//! Records under the client's name: `connected`, `connect failed`, `asks`, `sent` (the last byte
//! was passed to the network), `head` (with the status, and `close` = `yes` for `Connection:
//! close`), `completed`, `failed`, `retries`, `closed idle` (the server closed a connection between
//! requests), `goaway` (HTTP/2, with `last_stream` and `code`), `stalls` (the client reads nothing
//! from now on), `stall ends`, `response lost`, `reads nothing` and `reads again` (HTTP/2: while it
//! resets streams), `stops in a frame` (HTTP/2: the client sends only a part of this frame, and
//! nothing more), `end received` (while it sends that part), `gives up connecting`, `sends on`
//! (after the end of its connection), `ended`, `is done` (all of its connections are closed); with
//! TLS also `tcp connected` and `tls end`; with a PROXY header `header begins` and `header sent`.
//! The clients of a user's service record `body`, `step` (which of the requests that follow each
//! other it was), `messages` (of a WebSocket) and `call messages` (of a gRPC call), too.

mod answer;
mod ask;
mod client_id;
mod events;
mod exchange;
mod goaway;
mod goes_on;
mod grpc;
mod http1;
mod http2;
mod http2_slow;
mod http2_unread;
mod http2_upload;
mod hyper_runtime;
mod odd_frames;
mod pieces;
mod proxied;
mod sends_on;
mod session;
mod silent;
mod stalled;
mod tls;
mod upgraded;
mod websocket;

pub use answer::Head;
pub(crate) use ask::GRPC_STATUS;
pub use ask::{NAME_FIELD, OF_FIELD, RequestSpec};
pub(crate) use client_id::withholds_pongs;
pub use client_id::{ClientId, How, RequestFailure, ResponseSummary};
pub use exchange::{AfterRequest, ExchangePacing, Http1Client, Pace};
pub use goaway::FramePart;
pub use goes_on::goes_on;
pub(crate) use grpc::frame as grpc_frame;
pub use http1::{Retry, connection_per_request, keep_alive, one_request, pipelined, silent_first};
pub(crate) use http2::UNREAD_WINDOW;
pub use http2::{First, given_up, half_framed, multiplexed};
pub use http2_slow::read_slowly;
pub use http2_unread::{one_unread, resetting, stalled_http2, windowless};
pub use http2_upload::uploading;
pub use pieces::head_in_pieces;
pub use proxied::ProxiedRoute;
pub use sends_on::sends_on;
pub(crate) use session::session;
pub use silent::{
    Step, abandoned, byte_less, raw, silent_http2, slow_hello, slow_http2, strangers,
    windowless_request,
};
pub use stalled::{Stall, stalled};
pub use tls::{RecordParts, TlsIo, TlsRoute, server_config};
pub use upgraded::{FAREWELL, PING, upgraded};

use crate::network::HostNetwork;
use lameduck::runtime::{Peek, Transport};
use std::{fmt, future::Future, io, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// Source of a client's connections.
pub trait Connect: Clone + fmt::Debug + Send + Sync + 'static {
    /// Type of a connection.
    type Io: AsyncRead + AsyncWrite + Unpin + fmt::Debug + Send + 'static;

    /// Opens a connection.
    ///
    /// # Errors
    /// The network's errors.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Resets a connection, if the transport can; the default drops it.
    fn reset(io: Self::Io) {
        drop(io);
    }

    /// Returns whether the connection was reset, without reading; the default is that nothing is
    /// known.
    fn is_broken(io: &Self::Io) -> bool {
        let _ = io;
        false
    }

    /// Sends what is written next as one record in parts. Returns whether the connection has
    /// records; the default is that it has none.
    fn send_in_parts(io: &mut Self::Io, parts: RecordParts) -> bool {
        let _ = (io, parts);
        false
    }
}

/// Route from a host to a port of another.
#[derive(Clone, Debug)]
pub struct Route<H> {
    from: H,
    to: String,
    port: u16,
}

impl<H: HostNetwork> Route<H> {
    /// Creates the route from `from` to port `port` of the host called `to`.
    pub fn new(from: H, to: impl Into<String>, port: u16) -> Self {
        Self { from, to: to.into(), port }
    }
}

impl<H: HostNetwork> Connect for Route<H> {
    type Io = H::Stream;

    fn connect(&self) -> impl Future<Output = io::Result<Self::Io>> + Send {
        self.from.connect(&self.to, self.port)
    }

    fn reset(mut io: Self::Io) {
        io.reset_on_drop();
    }

    fn is_broken(io: &Self::Io) -> bool {
        io.peek() == Peek::Broken
    }
}

/// Pauses in the world's time. A pause of zero does not even yield.
#[expect(
    clippy::disallowed_methods,
    reason = "a client has no clock of its own, only the world's time"
)]
pub(crate) async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}
