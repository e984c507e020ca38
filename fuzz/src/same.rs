//! Sends the same bytes to the host and to bare hyper. The client must read the same bytes from
//! both.
//!
//! The host serves simple messages on its fast path and hands all others over to hyper, also from
//! the set of idle connections. A client must not notice the difference, except where the host
//! refuses what hyper accepts: see [`answer`].

use super::{
    Draw,
    client_time::{pause_for, within},
    pipe::Pipes,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Authority};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::TokioIo;
use lameduck::{
    Host, Limits, Settings,
    runtime::{Clock, Runtime, Seed},
};
use lameduck_sim::{SimClock, SimSpawner, Trace, scripted_signals};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Number of bytes that select how the others are sent.
const SCRIPT: usize = 3;

/// More simulated time than all handlers and pauses below take together.
const LIMIT: Duration = Duration::from_secs(600);

/// HTTP/1 requests, in pieces of any size, to handlers that respond at once or late, in one piece
/// or in several.
pub fn same(bytes: &[u8]) {
    let (script, sent) = bytes.split_at(bytes.len().min(SCRIPT));
    // The host detects the protocol. hyper's HTTP/1 server knows no other, so skip what looks like
    // HTTP/2 or is too short to decide.
    if contains(sent, b"PRI ") || sent.len() < 4 {
        return;
    }
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (Ok(ours), Ok(theirs)) = (runtime(), runtime()) else { return };
    let ours = ours.block_on(through_the_host(script, sent));
    let theirs = theirs.block_on(through_hyper(script, sent));
    let answers = [&ours, &theirs].map(|seen| zero_lengths_last(&seen.answers));
    let [(ours_before, ours_refuses), (theirs_before, theirs_refuses)] =
        [&answers[0], &answers[1]].map(|answers| before_a_refusal(answers));
    // Whether hyper looks for an error in a partial head depends on how the head was split.
    let ends_in_a_head = !sent.ends_with(b"\n\r\n") && !sent.ends_with(b"\n\n");
    let is_same = ours_before == theirs_before
        && (ours_refuses == theirs_refuses || ends_in_a_head)
        && ours.end == theirs.end;
    assert!(
        is_same,
        "P5: a client can tell us from hyper\n--- host, {:?}\n{}\n--- hyper, {:?}\n{}",
        ours.end,
        ours.answers.escape_ascii(),
        theirs.end,
        theirs.answers.escape_ascii()
    );
}

/// What a client read, and how its connection ended.
struct Seen {
    answers: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The server ended the connection.
    Closed,
    /// The connection stayed open until `LIMIT`.
    Open,
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// Moves each `content-length: 0` to the end of its head. hyper writes it there for a body that has
/// ended, and the host knows that earlier than hyper. The order means nothing (RFC 9110 §5.3).
fn zero_lengths_last(answers: &[u8]) -> Vec<u8> {
    const FIELD: &[u8] = b"content-length: 0\r\n";
    let position = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).position(|at| at == word);
    let (mut moved, mut rest) = (Vec::new(), answers);
    while let Some(at) = position(rest, FIELD) {
        let after = &rest[at + FIELD.len()..];
        let others = match position(after, b"\r\n\r\n") {
            _ if after.starts_with(b"\r\n") => 0,
            Some(end) => end + 2,
            None => after.len(),
        };
        moved.extend_from_slice(&rest[..at]);
        moved.extend_from_slice(&after[..others]);
        moved.extend_from_slice(FIELD);
        rest = &after[others..];
    }
    moved.extend_from_slice(rest);
    moved
}

/// Splits off a refusal (400). hyper writes it in both cases, but its HTTP version is that of the
/// last request that the same hyper connection read. A refusal by the host itself is as good as
/// hyper's: only its position counts.
fn before_a_refusal(answers: &[u8]) -> (&[u8], bool) {
    const VERSION: &[u8] = b"HTTP/1.1";
    match answers.windows(5).position(|window| window == b" 400 ") {
        Some(at) => (&answers[..at - VERSION.len()], true),
        None => (answers, false),
    }
}

async fn through_the_host(script: &[u8], sent: &[u8]) -> Seen {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new());
    let trace = Trace::new();
    let (_signals, signals) = scripted_signals("host", trace.clone());
    let spawner = SimSpawner::new("host", trace, clock.clone());
    let pipes = Pipes::new();
    // Bare hyper has no head timeout here.
    let limits = Limits::default().header_timeout(LIMIT);
    let host = Host::builder(Settings::default().request_timeout(None).limits(limits))
        .serve_hyper(service_fn(answer));
    let life = host.run_in(Runtime {
        clock,
        network: pipes.clone(),
        signals,
        spawner: spawner.clone(),
        seed: Seed(7),
    });
    let client = async {
        // The host begins to listen within its first polls.
        pause_for(Duration::from_millis(1)).await;
        match pipes.connect(capacity(script, sent)) {
            Some(pipe) => client(pipe, script, sent).await,
            None => unreachable!("the host listens"),
        }
    };
    let seen = tokio::select! {
        biased;
        _ = life => unreachable!("nobody stops the host"),
        seen = client => seen,
    };
    spawner.process_exited();
    seen
}

async fn through_hyper(script: &[u8], sent: &[u8]) -> Seen {
    let (near, far) = tokio::io::duplex(capacity(script, sent));
    let mut builder = Builder::new();
    builder.half_close(true).header_read_timeout(None).auto_date_header(false);
    let mut server = builder.serve_connection(TokioIo::new(far), service_fn(answer));
    let serve = async move {
        // hyper returns a requested upgrade before it has flushed. Polled once more, it flushes.
        drop((&mut server).await);
        drop(server.await);
    };
    let ((), seen) = tokio::join!(serve, client(near, script, sent));
    seen
}

/// Returns the capacity of the pipe. A body that breaks off ends hyper's connection at once, and a
/// client that reads little at a time loses what was not yet written. So a small pipe
/// is used only without a request body.
fn capacity(script: &[u8], sent: &[u8]) -> usize {
    if contains(sent, b"content-length") || contains(sent, b"transfer-encoding") {
        return 65_536;
    }
    [65_536, 65_536, 1024, 100, 1][usize::from(script.first().copied().unwrap_or(0)) % 5]
}

/// Splits the input into the parts in which it is sent.
fn parts<'a>(script: &[u8], sent: &'a [u8]) -> Vec<&'a [u8]> {
    let size = match script.get(1).copied().unwrap_or(0) % 5 {
        0 => 20_000,
        1 => 64,
        2 => 7,
        3 => 1,
        _ => {
            // One head per part.
            let mut begin = 0;
            let ends =
                (0..sent.len()).filter(|at| sent[..*at].ends_with(b"\r\n\r\n")).chain([sent.len()]);
            return ends.map(|end| &sent[std::mem::replace(&mut begin, end)..end]).collect();
        }
    };
    sent.chunks(size).collect()
}

/// Sends all parts, and reads until the end.
async fn client(pipe: DuplexStream, script: &[u8], sent: &[u8]) -> Seen {
    let pauses = usize::from(script.get(2).copied().unwrap_or(0)) % 6;
    // Long enough for a connection to be parked without a task.
    let pause = Duration::from_millis([0, 1, 1500][pauses % 3]);
    let first_pause = Duration::from_millis([0, 1500][pauses / 3]);
    let (mut reading, mut writing) = tokio::io::split(pipe);
    let write = async {
        pause_for(first_pause).await;
        for part in parts(script, sent) {
            if writing.write_all(part).await.is_err() {
                break;
            }
            if !pause.is_zero() {
                pause_for(pause).await;
            }
        }
        let _ = writing.shutdown().await;
    };
    let mut answers = Vec::new();
    let read = async {
        let mut room = [0; 1024];
        loop {
            match within(LIMIT, reading.read(&mut room)).await {
                Some(Ok(read @ 1..)) => answers.extend_from_slice(&room[..read]),
                Some(Ok(_) | Err(_)) => return End::Closed,
                None => return End::Open,
            }
        }
    };
    let ((), end) = tokio::join!(write, read);
    Seen { answers: without_dates(&answers), end }
}

/// Removes the date: bare hyper does not know the host's wall clock, so it sends none.
fn without_dates(answers: &[u8]) -> Vec<u8> {
    let lines = answers.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"date: ")).flatten().copied().collect()
}

/// The handler. Each letter of the path selects a property of the response.
///
/// Where the host is stricter than hyper, this handler is equally strict for both. A request
/// without one valid host is refused. A response closes the connection if it precedes the end of a
/// chunked body, or follows one with trailers. A body has the length that it and its head declare,
/// and a status without content has neither content nor length. The protocol does not switch before
/// the body was read. Before the response to a request whose body it drops, hyper has a turn to
/// skip that or to close. For an absolute-form target, the host in the target replaces the host
/// field.
async fn answer<B>(mut request: Request<B>) -> Result<Response<Pieces>, Infallible>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if !has_valid_host(&request) {
        return Ok(refusal());
    }
    let host = request.headers().get(header::HOST);
    if request.uri().scheme().is_some() && host.is_some_and(|host| host != "x:80") {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("x"));
    }
    let path = request.uri().path().as_bytes().to_vec();
    let mut draw = Draw(path.get(1..).unwrap_or_default());
    let mut response = Response::new(());
    let late = draw.byte();
    if late % 4 == 1 {
        pause_for(Duration::from_millis(1)).await;
    }
    if late % 4 == 2 {
        tokio::task::yield_now().await;
    }
    let statuses = [200, 200, 404, 503, 204, 304, 299, 205];
    *response.status_mut() =
        StatusCode::from_u16(statuses[usize::from(draw.byte()) % 8]).unwrap_or_default();
    let pieces: &[&'static str] = match draw.byte() % 6 {
        0 => &["hello"],
        1 => &["hel", "lo"],
        2 => &[],
        3 => &["", "hello", ""],
        4 => &[LARGE],
        _ => &[LARGE, LARGE, LARGE],
    };
    let how = draw.byte();
    let status = response.status();
    let pieces = if status == StatusCode::RESET_CONTENT {
        Pieces::new(&[], 0)
    } else {
        Pieces::new(pieces, how)
    };
    let is_tunnel = status.is_success() && request.method() == Method::CONNECT;
    let has_content = !is_tunnel && !matches!(status.as_u16(), 204 | 205 | 304);
    // hyper asserts that the length is declared only once.
    let length = pieces.size_hint().exact().unwrap_or(pieces.left);
    let headers = response.headers_mut();
    match draw.byte() % 8 {
        1 if has_content => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        2 => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
        3 => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"))),
        4 => {
            headers.append("x-many", HeaderValue::from_static("one"));
            headers.append("x-many", HeaderValue::from_static("two"));
        }
        5 => {
            // Echo the headers and the query that the handler received.
            for (name, value) in request.headers() {
                if name != header::CONNECTION
                    && name != header::TRANSFER_ENCODING
                    && name != header::CONTENT_LENGTH
                {
                    headers.append(name.clone(), value.clone());
                }
            }
            let query = request.uri().query().and_then(|query| HeaderValue::from_str(query).ok());
            headers.extend(query.map(|query| (header::ETAG, query)));
        }
        6 if has_content => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        _ => {}
    }
    if draw.byte() % 8 == 1 {
        response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"Because"));
    }
    // Echo the method and the target that the handler received.
    let headers = response.headers_mut();
    headers.extend(
        HeaderValue::from_str(request.method().as_str()).map(|method| (header::ALLOW, method)),
    );
    headers.extend(
        HeaderValue::from_str(&request.uri().to_string()).map(|target| (header::LOCATION, target)),
    );
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let may_switch = request.method() == Method::CONNECT;
    let mut body_end =
        if request.body().is_end_stream() { BodyEnd::Whole } else { BodyEnd::Unread };
    if draw.byte() % 2 == 1 {
        let (read, end) = read(request.into_body()).await;
        body_end = end;
        let read = HeaderValue::from_str(&format!("{read} {body_end:?}"));
        headers.extend(read.map(|read| (header::CONTENT_RANGE, read)));
    } else {
        drop(request);
        tokio::task::yield_now().await;
    }
    if may_switch
        && response.status().is_success()
        && matches!(body_end, BodyEnd::Unread | BodyEnd::Broken)
    {
        return Ok(refusal());
    }
    let headers = response.headers_mut();
    if is_chunked && body_end != BodyEnd::Whole {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|()| pieces))
}

fn has_valid_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_valid = |host: &HeaderValue| {
        host.to_str().is_ok_and(|host| host.is_empty() || host.parse::<Authority>().is_ok())
    };
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() == Version::HTTP_10,
        (Some(host), None) => is_valid(host),
        (Some(_), Some(_)) => false,
    }
}

fn refusal() -> Response<Pieces> {
    let mut response = Response::new(Pieces::new(&[], 0));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[derive(Debug, PartialEq, Eq)]
enum BodyEnd {
    Unread,
    Whole,
    Trailers,
    Broken,
}

/// Returns the length of a body, and how it ends.
async fn read<B>(mut body: B) -> (usize, BodyEnd)
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut read = 0;
    loop {
        match body.frame().await {
            None => return (read, BodyEnd::Whole),
            Some(Ok(frame)) if frame.is_trailers() => return (read, BodyEnd::Trailers),
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return (read, BodyEnd::Broken),
        }
    }
}

/// More than one write sends.
const LARGE: &str = match str::from_utf8(&[b'x'; 9000]) {
    Ok(text) => text,
    Err(_) => "",
};

/// A body in several pieces, which may be late.
struct Pieces {
    pieces: VecDeque<&'static str>,
    left: u64,
    says: Declares,
    is_late: bool,
}

/// What a body declares about itself in advance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declares {
    /// Its length, and its end.
    All,
    /// Its length.
    Length,
    Nothing,
}

impl Pieces {
    fn new(pieces: &[&'static str], how: u8) -> Self {
        Self {
            pieces: pieces.iter().copied().collect(),
            left: pieces.iter().map(|piece| piece.len() as u64).sum(),
            says: [Declares::All, Declares::Length, Declares::Nothing][usize::from(how) % 3],
            is_late: how / 4 % 2 == 1,
        }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let me = self.get_mut();
        if std::mem::take(&mut me.is_late) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = me.pieces.pop_front();
        me.left -= piece.map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }

    fn is_end_stream(&self) -> bool {
        self.says == Declares::All && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.says {
            Declares::All | Declares::Length => SizeHint::with_exact(self.left),
            Declares::Nothing => SizeHint::default(),
        }
    }
}
