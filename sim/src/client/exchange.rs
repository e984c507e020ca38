//! One request and its response on an HTTP/1 connection, at a given pace.

use super::{
    ClientId, Connect, Head, How, RequestFailure, RequestSpec, ResponseSummary,
    answer::{Body, Garbled},
    http1,
};
use bytes::BytesMut;
use http::Method;
use std::{
    future::{self, Future},
    io,
    task::{Context, Waker},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes read at once.
const READ_BYTES: usize = 8 * 1024;

/// How fast bytes are sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the network takes them.
    AtOnce,
    /// `bytes` bytes, then a pause, and so on.
    Trickle {
        /// Number of bytes at once; at least 1.
        bytes: usize,
        /// Pause after each piece.
        pause: Duration,
    },
}

/// What a client does after it has sent its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRequest {
    /// Waits for the response.
    Wait,
    /// Shuts down its write side, and waits for the response.
    Fin,
}

/// How a client paces an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangePacing {
    /// Pause between the two halves of the head.
    pub head_pause: Duration,
    /// How the request body is sent.
    pub upload: Pace,
    /// How the response is read.
    pub download: Pace,
    /// What the client does after the request.
    pub after: AfterRequest,
}

impl ExchangePacing {
    /// Everything at once.
    pub const PROMPT: Self = Self {
        head_pause: Duration::ZERO,
        upload: Pace::AtOnce,
        download: Pace::AtOnce,
        after: AfterRequest::Wait,
    };
}

/// An HTTP/1 connection, as seen by its client.
#[derive(Debug)]
pub struct Http1Client<Io> {
    pub(super) io: Io,
    pub(super) buffer: BytesMut,
    /// Number of the connection in the trace.
    pub(super) connection: u64,
    /// Number of requests sent on it.
    pub(super) requests: u64,
}

/// How an idle connection ended, or that the server sent bytes without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleEnd {
    Fin,
    Reset,
    Unasked,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Http1Client<Io> {
    /// Connects.
    ///
    /// # Errors
    /// The cause of the failure, which is already recorded.
    pub async fn open<C: Connect<Io = Io>>(
        client_id: &ClientId,
        route: &C,
    ) -> Result<Self, RequestFailure> {
        Ok(Self::new(client_id, http1::connect(client_id, route).await?))
    }

    /// Wraps a new connection, and records it.
    pub fn new(client_id: &ClientId, io: Io) -> Self {
        Self { io, buffer: BytesMut::new(), connection: client_id.connected(), requests: 0 }
    }

    /// Returns the transport.
    pub fn into_io(self) -> Io {
        self.io
    }

    /// Returns whether the connection is usable: neither an end nor unexpected bytes have been
    /// received.
    pub fn is_open(&mut self) -> bool {
        let idle = std::pin::pin!(self.idle_end());
        idle.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends `ask` and reads its response. The result is already recorded. The connection cannot be
    /// used again after a failure, or if the response announced a close.
    ///
    /// # Errors
    /// How the request failed.
    pub async fn exchange(
        &mut self,
        client_id: &ClientId,
        ask: &RequestSpec,
        pacing: ExchangePacing,
    ) -> Result<ResponseSummary, RequestFailure> {
        let request = client_id.asks(ask, self.connection, self.requests);
        self.requests += 1;
        let ask = &ask.named(&client_id.name_of(request));
        let Self { io, buffer, .. } = self;
        let (read, mut write) = tokio::io::split(io);
        let mut reader = Reader { io: read, buffer, seen: 0, pace: pacing.download };

        let sending = async {
            if send(&mut write, ask, pacing).await.is_ok() {
                client_id.sent(request);
            }
            // A server that responds early may not read the rest. Whether that is a failure depends
            // on the response.
            future::pending::<()>().await;
        };
        let receiving = async {
            let head = reader
                .head(&ask.method, |head| {
                    client_id.head(request, head.status, head.closes, head.of);
                })
                .await?;
            let body = reader.body(&head).await?;
            Ok((head, body))
        };
        let answer = tokio::select! {
            biased;
            () = sending => return Err(RequestFailure::new(How::Garbled, 0)),
            answer = receiving => Some(answer),
            () = super::pause(client_id.patience()) => None,
        };
        let end = match answer {
            Some(Ok((head, body))) => Ok(ResponseSummary::new(&head, body.bytes(), body.hash())),
            Some(Err(how)) => Err(RequestFailure::new(how, reader.seen)),
            None => Err(RequestFailure::new(How::TimedOut, reader.seen)),
        };
        client_id.ended(request, &end);
        // Who refuses an incomplete head does not know that it is one of HEAD.
        let is_whole = end.is_ok_and(|done| done.status != 408);
        if is_whole && !self.buffer.is_empty() {
            client_id.tell("unasked", &[("bytes", self.buffer.len().into())]);
        }
        end
    }

    /// Sends all of `asks` at once and reads the responses in order. After a failure or an
    /// announced close, the remaining requests fail too.
    pub(super) async fn pipeline(
        &mut self,
        client_id: &ClientId,
        asks: &[RequestSpec],
    ) -> Vec<Result<ResponseSummary, RequestFailure>> {
        let mut bytes = Vec::new();
        let mut requests = Vec::new();
        for ask in asks {
            let request = client_id.asks(ask, self.connection, self.requests);
            requests.push(request);
            self.requests += 1;
            bytes.extend_from_slice(&ask.named(&client_id.name_of(request)).bytes());
        }
        let Self { io, buffer, .. } = self;
        let (read, mut write) = tokio::io::split(io);
        let mut reader = Reader { io: read, buffer, seen: 0, pace: Pace::AtOnce };
        let sending = async {
            if write.write_all(&bytes).await.is_ok() {
                requests.iter().for_each(|request| client_id.sent(*request));
            }
            future::pending::<()>().await;
        };
        let receiving = async {
            let mut ends = Vec::new();
            for (request, ask) in requests.iter().zip(asks) {
                reader.seen = 0;
                let end = reader
                    .answer(&ask.method, |head| {
                        client_id.head(*request, head.status, head.closes, head.of);
                    })
                    .await;
                client_id.ended(*request, &end);
                let over = end.is_err() || end.is_ok_and(|done| done.closes);
                ends.push(end);
                if over {
                    break;
                }
            }
            for request in &requests[ends.len()..] {
                let end = Err(RequestFailure::new(How::EndBeforeHead, 0));
                client_id.ended(*request, &end);
                ends.push(end);
            }
            ends
        };
        let ends = tokio::select! {
            biased;
            () = sending => Vec::new(),
            ends = receiving => ends,
            () = super::pause(client_id.patience()) => return Vec::new(),
        };
        // After a failure the rest belongs to the responses that are missing.
        if ends.iter().all(Result::is_ok) && !self.buffer.is_empty() {
            client_id.tell("unasked", &[("bytes", self.buffer.len().into())]);
        }
        ends
    }

    /// Waits until the server ends an idle connection or sends unexpected bytes.
    ///
    /// # Cancel safety
    /// No bytes are lost: those already read stay in the buffer.
    pub(super) async fn idle_end(&mut self) -> IdleEnd {
        if !self.buffer.is_empty() {
            return IdleEnd::Unasked;
        }
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => IdleEnd::Fin,
            Ok(_) => IdleEnd::Unasked,
            Err(_) => IdleEnd::Reset,
        }
    }
}

async fn send(
    io: &mut (impl AsyncWrite + Unpin),
    ask: &RequestSpec,
    pacing: ExchangePacing,
) -> io::Result<()> {
    let head = ask.head();
    if pacing.head_pause.is_zero() && pacing.upload == Pace::AtOnce {
        io.write_all(&ask.bytes()).await?;
    } else {
        let (first, second) =
            head.split_at(if pacing.head_pause.is_zero() { 0 } else { head.len() / 2 });
        io.write_all(first).await?;
        super::pause(pacing.head_pause).await;
        io.write_all(second).await?;
        match pacing.upload {
            Pace::AtOnce => io.write_all(&ask.body).await?,
            Pace::Trickle { bytes, pause } => {
                for piece in ask.body.chunks(bytes.max(1)) {
                    super::pause(pause).await;
                    io.write_all(piece).await?;
                }
            }
        }
    }
    io.flush().await?;
    match pacing.after {
        AfterRequest::Wait => Ok(()),
        AfterRequest::Fin => io.shutdown().await,
    }
}

/// Reads responses, and counts their bytes.
pub(super) struct Reader<'a, R> {
    pub(super) io: R,
    pub(super) buffer: &'a mut BytesMut,
    pub(super) seen: u64,
    pub(super) pace: Pace,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    pub(super) async fn answer(
        &mut self,
        method: &Method,
        on_head: impl FnOnce(&Head),
    ) -> Result<ResponseSummary, RequestFailure> {
        let head =
            self.head(method, on_head).await.map_err(|how| RequestFailure::new(how, self.seen))?;
        let body = self.body(&head).await.map_err(|how| RequestFailure::new(how, self.seen))?;
        Ok(ResponseSummary::new(&head, body.bytes(), body.hash()))
    }

    async fn head(&mut self, method: &Method, on_head: impl FnOnce(&Head)) -> Result<Head, How> {
        loop {
            match Head::take(self.buffer, method) {
                Ok(Some(head)) if head.is_interim() => {}
                Ok(Some(head)) => {
                    on_head(&head);
                    return Ok(head);
                }
                Ok(None) => match self.more().await {
                    Ok(0) => return Err(How::EndBeforeHead),
                    Ok(_) => {}
                    Err(_) => return Err(How::ResetBeforeHead),
                },
                Err(Garbled) => return Err(How::Garbled),
            }
        }
    }

    async fn body(&mut self, head: &Head) -> Result<Body, How> {
        let mut body = Body::new(head);
        loop {
            match body.take(self.buffer) {
                Ok(true) => return Ok(body),
                Ok(false) => match self.more().await {
                    Ok(0) if body.may_end_here() => return Ok(body),
                    Ok(0) => return Err(How::BodyCut),
                    Ok(_) => {}
                    Err(_) => return Err(How::ResetInBody),
                },
                Err(Garbled) => return Err(How::Garbled),
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        let got = match self.pace {
            Pace::AtOnce => {
                self.buffer.reserve(READ_BYTES);
                self.io.read_buf(self.buffer).await?
            }
            Pace::Trickle { bytes, pause } => {
                super::pause(pause).await;
                self.buffer.reserve(bytes.max(1));
                (&mut self.io).take(bytes.max(1) as u64).read_buf(self.buffer).await?
            }
        };
        self.seen += got as u64;
        Ok(got)
    }
}
