//! One request and its response on an HTTP/1 connection, at a given pace.

use super::{
    ClientId, Connect, Head, How, RequestFailure, RequestSpec, ResponseSummary,
    answer::{Body, Garbled},
    http1,
};
use crate::scenario::Previous;
use bytes::BytesMut;
use http::Method;
use std::{
    future::{self, Future},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
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

/// What a client of HTTP/1 sends between requests (RFC 9112 §2.2).
pub(super) const EMPTY_LINE: &[u8] = b"\r\n";

/// How often a client sends something beside its requests, on one connection and in one pause.
pub(super) const NOISE_MAX: u32 = 60;

/// How long a client waits for the end of a connection after its last response.
const LAST_END_WAIT: Duration = Duration::from_secs(3);

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
    /// The last complete response, if the client keeps them.
    pub(super) last: Previous,
}

/// How an idle connection ended, or that the server sent bytes without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleEnd {
    Fin,
    Reset,
    Unasked,
}

impl IdleEnd {
    /// Returns the name used in the trace.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::Unasked => "unasked-bytes",
        }
    }
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
        let (buffer, connection) = (BytesMut::new(), client_id.connected());
        Self { io, buffer, connection, requests: 0, last: Previous::default() }
    }

    /// Takes the last complete response, if the client keeps them.
    pub(crate) fn take_last(&mut self) -> Previous {
        std::mem::take(&mut self.last)
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
        let Self { io, buffer, last, .. } = self;
        let (read, mut write) = tokio::io::split(io);
        let mut reader = Reader::new(read, buffer, client_id.keeps());
        reader.pace = pacing.download;
        reader.is_measured = client_id.measures_bodies();

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
                    client_id.head(request, head);
                })
                .await?;
            let body = reader.body(&head).await?;
            Ok((head, body, reader.location.take()))
        };
        let answer = tokio::select! {
            biased;
            () = sending => return Err(RequestFailure::new(How::Garbled, 0)),
            answer = receiving => Some(answer),
            () = super::pause(client_id.max_wait()) => None,
        };
        let end = match answer {
            Some(Ok((head, body, location))) => {
                let done = ResponseSummary::new(&head, body.bytes(), body.hash());
                client_id.events(request, body.events());
                let kept = body.into_kept();
                client_id.received(request, &kept);
                *last = Previous { location, body: text(kept) };
                Ok(done)
            }
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

    /// Sends all of `asks`, at once or with a pause of `every` in between, and reads the responses
    /// in order. After a failure or an announced close, the remaining requests that were sent fail
    /// too.
    pub(crate) async fn pipeline(
        &mut self,
        client_id: &ClientId,
        asks: &[RequestSpec],
        every: Duration,
    ) -> Vec<Result<ResponseSummary, RequestFailure>> {
        let (connection, earlier) = (self.connection, self.requests);
        let asked = Mutex::new(Vec::new());
        let Self { io, buffer, requests: sent_on, .. } = self;
        let (read, mut write) = tokio::io::split(io);
        let mut reader = Reader::new(read, buffer, client_id.keeps());
        let sending = async {
            let at_once = if every.is_zero() { asks.len() } else { 1 };
            for (n, asks) in asks.chunks(at_once.max(1)).enumerate() {
                super::pause(if n == 0 { Duration::ZERO } else { every }).await;
                let mut bytes = Vec::new();
                let mut requests = Vec::new();
                for ask in asks {
                    let request =
                        client_id.asks(ask, connection, earlier + lock(&asked).len() as u64);
                    bytes.extend_from_slice(&ask.named(&client_id.name_of(request)).bytes());
                    lock(&asked).push(request);
                    requests.push(request);
                }
                if write.write_all(&bytes).await.is_ok() && write.flush().await.is_ok() {
                    requests.iter().for_each(|request| client_id.sent(*request));
                }
            }
            future::pending::<()>().await;
        };
        let receiving = async {
            let mut ends = Vec::new();
            for (n, ask) in asks.iter().enumerate() {
                reader.seen = 0;
                let request = || lock(&asked).get(n).copied();
                let end = reader
                    .answer(&ask.method, |head| {
                        request().into_iter().for_each(|request| client_id.head(request, head));
                    })
                    .await;
                let Some(request) = request() else { break };
                if end.is_ok() {
                    client_id.received(request, &reader.kept);
                }
                client_id.ended(request, &end);
                let over = end.is_err() || end.is_ok_and(|done| done.closes);
                ends.push(end);
                if over {
                    break;
                }
            }
            for request in lock(&asked).iter().skip(ends.len()) {
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
            () = super::pause(client_id.max_wait()) => return Vec::new(),
        };
        *sent_on += lock(&asked).len() as u64;
        // After a failure the rest belongs to the responses that are missing.
        if ends.iter().all(Result::is_ok) && !self.buffer.is_empty() {
            client_id.tell("unasked", &[("bytes", self.buffer.len().into())]);
        }
        ends
    }

    /// Waits until the server ends the connection after a response that has announced this, and
    /// records how. Only some clients do; the others close it themselves.
    pub(super) async fn last_end(mut self, client_id: &ClientId) {
        if !client_id.awaits_last_ends() {
            return;
        }
        let how = tokio::select! {
            biased;
            end = self.idle_end() => end.name(),
            () = super::pause(LAST_END_WAIT) => "none",
        };
        let fields = [("connection", self.connection.into()), ("how", how.into())];
        client_id.tell("ended after the last", &fields);
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

impl<Io: AsyncRead + AsyncWrite + Unpin> Http1Client<Io> {
    /// Waits as [`idle_end`](Self::idle_end) does, and sends an empty line after each pause of
    /// `every`, if there is one.
    ///
    /// # Cancel safety
    /// A part of the last line may be lost.
    pub(super) async fn idle_end_among_noise(&mut self, every: Option<Duration>) -> IdleEnd {
        let Some(every) = every else { return self.idle_end().await };
        for _ in 0..NOISE_MAX {
            tokio::select! {
                biased;
                end = self.idle_end() => return end,
                () = super::pause(every) => {}
            }
            if self.io.write_all(EMPTY_LINE).await.is_err() || self.io.flush().await.is_err() {
                break;
            }
        }
        self.idle_end().await
    }
}

fn lock(asked: &Mutex<Vec<u64>>) -> MutexGuard<'_, Vec<u64>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads bytes as text. Most are valid, which is checked faster than invalid ones are replaced.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

async fn send(
    io: &mut (impl AsyncWrite + Unpin),
    ask: &RequestSpec,
    pacing: ExchangePacing,
) -> io::Result<()> {
    if pacing.head_pause.is_zero() && pacing.upload == Pace::AtOnce {
        io.write_all(&ask.bytes()).await?;
    } else {
        let head = ask.head();
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
    /// Number of bytes of each body that are kept.
    keeps: usize,
    /// Whether bodies are hashed, and their events counted.
    is_measured: bool,
    kept: Vec<u8>,
    location: Option<String>,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    /// Creates a reader that reads at once and keeps the first `keeps` bytes of each body.
    pub(super) const fn new(io: R, buffer: &'a mut BytesMut, keeps: usize) -> Self {
        Self {
            io,
            buffer,
            seen: 0,
            pace: Pace::AtOnce,
            keeps,
            is_measured: true,
            kept: Vec::new(),
            location: None,
        }
    }

    pub(super) async fn answer(
        &mut self,
        method: &Method,
        on_head: impl FnOnce(&Head),
    ) -> Result<ResponseSummary, RequestFailure> {
        let head =
            self.head(method, on_head).await.map_err(|how| RequestFailure::new(how, self.seen))?;
        let body = self.body(&head).await.map_err(|how| RequestFailure::new(how, self.seen))?;
        let done = ResponseSummary::new(&head, body.bytes(), body.hash());
        self.kept = body.into_kept();
        Ok(done)
    }

    async fn head(&mut self, method: &Method, on_head: impl FnOnce(&Head)) -> Result<Head, How> {
        let location = &mut self.location;
        let mut on_field = |name: &str, value: &str| {
            if name.eq_ignore_ascii_case("location") {
                *location = Some(value.to_owned());
            }
        };
        loop {
            match Head::take(self.buffer, method, &mut on_field) {
                Ok(Some(head)) if head.is_interim() => {}
                Ok(Some(head)) => {
                    on_head(&head);
                    return Ok(head);
                }
                Ok(None) => {
                    match more(&mut self.io, self.buffer, self.pace, &mut self.seen).await {
                        Ok(0) => return Err(How::EndBeforeHead),
                        Ok(_) => {}
                        Err(_) => return Err(How::ResetBeforeHead),
                    }
                }
                Err(Garbled) => return Err(How::Garbled),
            }
        }
    }

    async fn body(&mut self, head: &Head) -> Result<Body, How> {
        let mut body = Body::new(head).keeping(self.keeps, self.is_measured);
        loop {
            match body.take(self.buffer) {
                Ok(true) => return Ok(body),
                Ok(false) => match more(&mut self.io, self.buffer, self.pace, &mut self.seen).await
                {
                    Ok(0) if body.may_end_here() => return Ok(body),
                    Ok(0) => return Err(How::BodyCut),
                    Ok(_) => {}
                    Err(_) => return Err(How::ResetInBody),
                },
                Err(Garbled) => return Err(How::Garbled),
            }
        }
    }
}

/// Reads some bytes into `buffer`, and counts them.
async fn more(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    pace: Pace,
    seen: &mut u64,
) -> io::Result<usize> {
    let got = match pace {
        Pace::AtOnce => {
            buffer.reserve(READ_BYTES);
            io.read_buf(buffer).await?
        }
        Pace::Trickle { bytes, pause } => {
            super::pause(pause).await;
            buffer.reserve(bytes.max(1));
            io.take(bytes.max(1) as u64).read_buf(buffer).await?
        }
    };
    *seen += got as u64;
    Ok(got)
}
