//! An HTTP/2 client that takes no notice of a GOAWAY: it goes on opening streams, and delays its
//! response to the PING that follows.

use super::{
    ClientId, Connect, RequestSpec,
    goaway::{GOAWAY, HEADER_BYTES},
    http2::{ClientConnection, one},
    hyper_runtime::Tracked,
    odd_frames::Pongs,
};
use crate::task_count::counted;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinSet,
};

/// Starts each of `asks` a pause after the one before, all on one connection, while that lasts. The
/// response to each PING comes after `pong`, or never. Returns when the server has ended the
/// connection, or the client has waited for that for its longest time.
pub async fn goes_on<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
    pong: Option<Duration>,
) {
    let tasks = Tracked::default();
    let pongs = pong.map_or(Pongs::Never, Pongs::after);
    let Ok(link) = ClientConnection::open_deaf(client_id, connect, &tasks, pongs).await else {
        return;
    };
    let mut requests = JoinSet::new();
    for ((pause, ask), earlier) in asks.into_iter().zip(0_u64..) {
        super::pause(pause).await;
        if link.ended.is_cancelled() {
            break;
        }
        let (client_id, mut sender, connection) =
            (client_id.clone(), link.sender.clone(), link.connection);
        requests.spawn(counted(async move {
            one(&client_id, &mut sender, &ask, connection, earlier).await;
        }));
    }
    while requests.join_next().await.is_some() {}
    link.stay(client_id).await;
    drop(link);
    tasks.end().await;
}

/// The last stream of a graceful GOAWAY (RFC 9113 §6.8).
const ALL_STREAMS: [u8; 4] = (u32::MAX >> 1).to_be_bytes();

/// The most bytes read at once.
const READ_BYTES: usize = 8 * 1024;

/// Passes all bytes through, but can withhold each graceful GOAWAY from its reader.
#[derive(Debug)]
pub(super) struct HiddenGoaway<Io> {
    io: Io,
    is_hiding: bool,
    /// Bytes of the frame that is not complete yet.
    partial: Vec<u8>,
    /// Bytes to be passed on, and how many of them were.
    ready: Vec<u8>,
    passed: usize,
}

impl<Io> HiddenGoaway<Io> {
    pub(super) const fn new(io: Io, is_hiding: bool) -> Self {
        Self { io, is_hiding, partial: Vec::new(), ready: Vec::new(), passed: 0 }
    }

    /// Moves all complete frames to those that are passed on, without graceful GOAWAYs.
    fn take_frames(&mut self) {
        let mut begin = 0;
        while let Some([a, b, c, kind, ..]) = self.partial.get(begin..) {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let end = begin + HEADER_BYTES + length;
            let Some(frame) = self.partial.get(begin..end) else { break };
            let last = frame.get(HEADER_BYTES..HEADER_BYTES + ALL_STREAMS.len());
            if *kind != GOAWAY || last != Some(&ALL_STREAMS) {
                self.ready.extend_from_slice(frame);
            }
            begin = end;
        }
        self.partial.drain(..begin);
    }

    /// Passes on what is ready. Returns false if nothing is.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = &self.ready[self.passed..];
        let passed = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..passed]);
        self.passed += passed;
        if self.passed == self.ready.len() {
            self.ready.clear();
            self.passed = 0;
        }
        passed > 0
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for HiddenGoaway<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_hiding {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        }
        loop {
            if this.pass_on(buffer) {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.partial.extend_from_slice(read.filled());
            this.take_frames();
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for HiddenGoaway<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::HiddenGoaway;

    #[test]
    fn a_graceful_goaway_is_hidden_and_no_other_frame() {
        let graceful = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let last = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
        let data = [0, 0, 2, 0, 1, 0, 0, 0, 3, b'h', b'i'];
        let all = [&data[..], &graceful, &data, &last, &data[..10]].concat();
        for piece in [1, 3, 20, all.len()] {
            let mut hidden = HiddenGoaway::new((), true);
            for piece in all.chunks(piece) {
                hidden.partial.extend_from_slice(piece);
                hidden.take_frames();
            }
            assert_eq!(hidden.ready, [&data[..], &data, &last].concat());
            assert_eq!(hidden.partial, data[..10]);
        }
    }
}
