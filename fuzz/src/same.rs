//! The same bytes to our host and to bare hyper: what the client reads is the same, to the byte.
//!
//! The host writes and reads plain messages itself and hands hyper over what is not. Nobody must be able to tell.

use super::{
    Draw,
    client_time::{pause_for, within},
    pipe::Pipes,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::TokioIo;
use lameduck::{
    Host, Limits,
    env::{Clock, Env, Seed},
};
use lameduck_sim::{SimClock, SimRooms, Trace, scripted_signals};
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

/// Bytes that say how the others are sent.
const SCRIPT: usize = 3;

/// More than all handlers and pauses below take together, in simulated time.
const LIMIT: Duration = Duration::from_secs(600);

/// Requests of HTTP/1, in any pieces, to handlers that answer at once or late, in one piece or in several.
pub fn same(bytes: &[u8]) {
    let (script, sent) = bytes.split_at(bytes.len().min(SCRIPT));
    // Which protocol is spoken is ours to find out, and hyper's server of HTTP/1 knows no other.
    if contains(sent, b"PRI ") || sent.len() < 4 {
        return;
    }
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (Ok(ours), Ok(theirs)) = (runtime(), runtime()) else { return };
    let ours = ours.block_on(through_the_host(script, sent));
    let theirs = theirs.block_on(through_hyper(script, sent));
    assert!(
        before_a_refusal(&ours, &theirs) == before_a_refusal(&theirs, &ours),
        "P5: a client can tell us from hyper\n--- host\n{}\n--- hyper\n{}",
        ours.escape_ascii(),
        theirs.escape_ascii()
    );
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// A refusal is hyper's to write on both sides. How far it gets is chance, since hyper does not wait until it is written; and its version
/// is that of the last request that the same hyper read.
fn before_a_refusal<'a>(answers: &'a [u8], others: &[u8]) -> &'a [u8] {
    const VERSION: &[u8] = b"HTTP/1.1";
    let begins = |answers: &[u8]| answers.windows(5).position(|window| window == b" 400 ");
    let end = begins(answers).into_iter().chain(begins(others)).min().map_or(answers.len(), |at| at - VERSION.len());
    answers.get(..end).unwrap_or(answers)
}

async fn through_the_host(script: &[u8], sent: &[u8]) -> Vec<u8> {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new());
    let trace = Trace::new();
    let (_signals, signals) = scripted_signals("host", trace.clone());
    let rooms = SimRooms::new("host", trace, clock.clone());
    let pipes = Pipes::new();
    // hyper has no patience that ends.
    let limits = Limits { header_timeout: LIMIT, ..Limits::default() };
    let host = Host::builder().request_timeout(None).limits(limits).hyper(service_fn(answer));
    let life = host.run_in(Env { clock, network: pipes.clone(), signals, rooms: rooms.clone(), seed: Seed(7) });
    let client = async {
        // The host listens in its first turns.
        pause_for(Duration::from_millis(1)).await;
        match pipes.connect(capacity(script, sent)) {
            Some(pipe) => client(pipe, script, sent).await,
            None => Vec::new(),
        }
    };
    let answers = tokio::select! {
        biased;
        _ = life => Vec::new(),
        answers = client => answers,
    };
    rooms.process_over();
    without_dates(&answers)
}

async fn through_hyper(script: &[u8], sent: &[u8]) -> Vec<u8> {
    let (near, far) = tokio::io::duplex(capacity(script, sent));
    let mut builder = Builder::new();
    builder.half_close(true).header_read_timeout(None).auto_date_header(false);
    let server = builder.serve_connection(TokioIo::new(far), service_fn(answer));
    let ((), answers) = tokio::join!(async { drop(server.await) }, client(near, script, sent));
    without_dates(&answers)
}

/// How much the pipe holds. A body that breaks off ends hyper's connection at once, whatever it still has to write to a client that takes
/// little at a time: such a client sends none.
fn capacity(script: &[u8], sent: &[u8]) -> usize {
    if contains(sent, b"content-length") || contains(sent, b"transfer-encoding") {
        return 65_536;
    }
    [65_536, 65_536, 1024, 100, 1][usize::from(script.first().copied().unwrap_or(0)) % 5]
}

/// Sends all of it, in pieces, and reads all there is until the end.
async fn client(pipe: DuplexStream, script: &[u8], sent: &[u8]) -> Vec<u8> {
    let piece = [20_000, 64, 7, 1][usize::from(script.get(1).copied().unwrap_or(0)) % 4];
    let pause = Duration::from_millis([0, 1, 1500][usize::from(script.get(2).copied().unwrap_or(0)) % 3]);
    let (mut reading, mut writing) = tokio::io::split(pipe);
    let write = async {
        for part in sent.chunks(piece) {
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
        while let Some(Ok(read @ 1..)) = within(LIMIT, reading.read(&mut room)).await {
            answers.extend_from_slice(&room[..read]);
        }
    };
    tokio::join!(write, read);
    answers
}

/// hyper does not know the host's time of day, so it writes none.
fn without_dates(answers: &[u8]) -> Vec<u8> {
    let lines = answers.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"date: ")).flatten().copied().collect()
}

/// What is answered, by the path: each of its letters says something about it.
async fn answer<B>(request: Request<B>) -> Result<Response<Pieces>, Infallible> {
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
    *response.status_mut() = StatusCode::from_u16(statuses[usize::from(draw.byte()) % 8]).unwrap_or_default();
    let pieces: &[&'static str] = match draw.byte() % 6 {
        0 => &["hello"],
        1 => &["hel", "lo"],
        2 => &[],
        3 => &["", "hello", ""],
        4 => &[LARGE],
        _ => &[LARGE, LARGE, LARGE],
    };
    let pieces = Pieces::new(pieces, draw.byte());
    // hyper asserts that a length is said once.
    let length = pieces.size_hint().exact().unwrap_or(pieces.left);
    let headers = response.headers_mut();
    match draw.byte() % 8 {
        1 => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        2 => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
        3 => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"))),
        4 => {
            headers.append("x-many", HeaderValue::from_static("one"));
            headers.append("x-many", HeaderValue::from_static("two"));
        }
        5 => {
            // What the handler was told, told back.
            for (name, value) in request.headers() {
                if name != header::CONNECTION && name != header::TRANSFER_ENCODING && name != header::CONTENT_LENGTH {
                    headers.append(name.clone(), value.clone());
                }
            }
            let query = request.uri().query().and_then(|query| HeaderValue::from_str(query).ok());
            headers.extend(query.map(|query| (header::ETAG, query)));
        }
        // A body that says it is shorter than it is ends there, in chunks too; hyper believes it only without.
        6 if pieces.says != Says::Less => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        _ => {}
    }
    if draw.byte() % 8 == 1 {
        response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"Because"));
    }
    Ok(response.map(|()| pieces))
}

/// More than leaves at once.
const LARGE: &str = match str::from_utf8(&[b'x'; 9000]) {
    Ok(text) => text,
    Err(_) => "",
};

/// A body in several pieces, some of them late.
struct Pieces {
    pieces: VecDeque<&'static str>,
    left: u64,
    says: Says,
    is_late: bool,
}

/// What a body says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// How long it is, and when it ends.
    All,
    /// How long it is.
    Length,
    /// That it is shorter than it is.
    Less,
    Nothing,
}

impl Pieces {
    fn new(pieces: &[&'static str], how: u8) -> Self {
        Self {
            pieces: pieces.iter().copied().collect(),
            left: pieces.iter().map(|piece| piece.len() as u64).sum(),
            says: [Says::All, Says::Length, Says::Nothing, Says::Less][usize::from(how) % 4],
            is_late: how / 4 % 2 == 1,
        }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
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
        self.says == Says::All && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.says {
            Says::All | Says::Length => SizeHint::with_exact(self.left),
            Says::Less => SizeHint::with_exact(self.left.saturating_sub(1)),
            Says::Nothing => SizeHint::default(),
        }
    }
}
