//! Plain requests, answered at once and without a guest.
//!
//! ```text
//!  bytes ──▶ plain? ──▶ handler polled once ──▶ answer plain? ──▶ body polled once ──▶ written at once ──▶ next bytes
//!              │ no          │ pending              │ no              │ not whole           │ not all
//!              └─────────────┴──────────────────────┴─────────────────┴─────────────────────┴──▶ handed over to hyper
//! ```
//!
//! hyper is handed over what it would have had in its hands: bytes not answered yet, a handler or an answer that has begun, bytes not
//! written yet. Nothing is done twice, and whatever takes time, goes wrong or is unusual is seen to in one place.

use super::{
    answer::{Answer, BegunAnswer},
    berth::Berth,
    counts::Counts,
    crew::Crew,
    date::Today,
    limits::SENT_AT_ONCE,
    link::{Link, Protocol},
    plain::{self, After, PlainRequest, Wish},
    service::{Begun, BegunHandling, Guarded, HttpService},
    sniff::after_empty_lines,
};
use crate::{env::Transport, lifecycle::Moment};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body as HttpBody;
use std::{
    cell::Cell,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// What a connection keeps to answer plain requests with.
pub(super) struct Direct<S: HttpService> {
    service: Guarded<S>,
    handling: BegunHandling<S>,
    answer: BegunAnswer<S::ResponseBody>,
    /// The last answer's, to use again.
    headers: HeaderMap,
    today: Today,
    _counted: Counted,
}

/// What became of the bytes that were read.
pub(super) enum Served<S: HttpService> {
    /// All of them are answered, the last of them then.
    All(Moment),
    /// The last answer of the connection was written; these bytes were read behind its request.
    Last(Bytes),
    /// The rest is for hyper.
    NotOurs(Rest<S>),
    /// An answer broke off: the connection must not end as if it were whole.
    Torn,
    /// The connection is broken.
    Lost,
}

/// What is left to do for hyper.
pub(super) struct Rest<S: HttpService> {
    /// To be read.
    read: Bytes,
    /// The request that it begins with, if that has begun.
    begun: Option<Begun<S>>,
    /// To be written first.
    unwritten: Bytes,
    after: After,
}

impl<S: HttpService> Rest<S> {
    fn new(read: &[u8], begun: Option<Begun<S>>) -> Self {
        Self { read: plain::shelve(read), begun, unwritten: Bytes::new(), after: After::GoesOn }
    }

    /// For another task than the one that was polled so far.
    pub(super) fn on_another_task(self) -> Self {
        Self { begun: self.begun.map(Begun::on_another_task), ..self }
    }
}

/// What hyper gets.
pub(crate) struct Handover<S: HttpService> {
    pub(super) service: Guarded<S>,
    /// To be read, and if its first request has begun, again.
    pub(super) read: Bytes,
    /// To be written first.
    pub(super) unwritten: Bytes,
    pub(super) after: After,
}

/// What became of an answer.
enum Sent<S: HttpService> {
    Whole(After, Moment),
    /// It is in its place, with these bytes not yet written.
    InPart(After, Bytes),
    /// It was not plain.
    NotOurs(Begun<S>),
    Torn,
    Lost,
}

/// What the memory that answers are put together in may hold on to.
const OUT_BYTES_KEPT: usize = 64 * 1024;

thread_local! {
    /// Where answers are put together, one at a time.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<S: HttpService> Direct<S> {
    pub(super) fn new(crew: &Crew<S>, berth: &Berth) -> Self {
        let link = Arc::new(Link::new(Protocol::Http1, crew, berth));
        Self {
            service: Guarded::new(crew.service.clone(), link),
            handling: Box::pin(None),
            answer: Box::pin(None),
            headers: HeaderMap::new(),
            today: Today::unknown(),
            _counted: Counted::new(crew.counts.clone()),
        }
    }

    /// What hyper gets of it.
    pub(super) fn hand_over(self, rest: Rest<S>) -> Box<Handover<S>> {
        let Rest { read, begun, unwritten, after } = rest;
        let mut service = self.service;
        if let Some(begun) = begun {
            service.resume(begun);
        }
        Box::new(Handover { service, read, unwritten, after })
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        self.service.link()
    }

    /// Answers the plain requests that `read` begins with, as far as that can be done at once, and no more of them than `turns`, which it
    /// counts down.
    pub(super) fn serve<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        mut read: &[u8],
        turns: &mut u8,
    ) -> Served<S> {
        loop {
            let fields_max = self.link().side.config.limits.headers_max;
            let plain = if *turns == 0 { None } else { plain::read(read, fields_max, &mut self.headers) };
            let Some(plain) = plain else {
                // Nobody was called for these: they may be half a head, which has a time of its own.
                self.link().take_called();
                return Served::NotOurs(Rest::new(read, None));
            };
            *turns -= 1;
            let PlainRequest { uri, len, wish } = plain;
            let arrived = self.service.handle_in(&mut self.handling, uri, &mut self.headers);
            let polled = self.handling.as_mut().as_pin_mut().map_or(Poll::Pending, |handling| handling.poll(cx));
            let Poll::Ready(Ok(response)) = polled else {
                let handling = mem::replace(&mut self.handling, Box::pin(None));
                return Served::NotOurs(Rest::new(read, Some(Begun::Waits(handling))));
            };
            self.handling.set(None);
            let mut out = OUT.take();
            let sent = self.answer(cx, io, response, arrived, wish, &mut out);
            if out.capacity() <= OUT_BYTES_KEPT {
                out.clear();
                OUT.set(out);
            }
            match sent {
                Sent::Whole(after, now) => {
                    read = after_empty_lines(&read[len..]);
                    if after == After::Ends {
                        return Served::Last(plain::shelve(read));
                    }
                    if read.is_empty() {
                        return Served::All(now);
                    }
                }
                Sent::InPart(after, unwritten) => {
                    read = after_empty_lines(&read[len..]);
                    return Served::NotOurs(Rest { unwritten, after, ..Rest::new(read, None) });
                }
                Sent::NotOurs(begun) => return Served::NotOurs(Rest::new(read, Some(begun))),
                Sent::Torn => return Served::Torn,
                Sent::Lost => return Served::Lost,
            }
        }
    }

    /// Sends an answer, if it is plain and whole.
    fn answer<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        mut response: Response<Answer<S::ResponseBody>>,
        arrived: Moment,
        wish: Wish,
        out: &mut Vec<u8>,
    ) -> Sent<S> {
        let side = &self.service.link().side;
        // The handler has answered at once, so that this will do, and the clock is read once more when all is sent.
        let date = self.today.at(arrived, || side.clock.wall());
        let body = response.body();
        let length = body.size_hint().exact().filter(|length| *length > 0 || body.is_end_stream());
        let after = length.and_then(|length| plain::write(out, &mut response, length, wish, date));
        let (Some(length), Some(after)) = (length, after) else {
            return Sent::NotOurs(Begun::Answer(Box::new(response)));
        };
        if length.saturating_add(out.len() as u64) > SENT_AT_ONCE {
            return Sent::NotOurs(Begun::Answer(Box::new(response)));
        }
        let (mut head, answer) = response.into_parts();
        self.answer.set(Some(answer));
        if length > 0 {
            match self.answer.as_mut().as_pin_mut().map_or(Poll::Pending, |answer| answer.poll_whole(cx)) {
                Poll::Ready(Some(bytes)) => out.extend_from_slice(&bytes),
                Poll::Ready(None) => return Sent::Torn,
                Poll::Pending => {
                    let answer = mem::replace(&mut self.answer, Box::pin(None));
                    return Sent::NotOurs(Begun::Answer(Box::new(Response::from_parts(head, Answer::begun(answer)))));
                }
            }
        }
        let flight = self.answer.as_mut().as_pin_mut().and_then(Answer::end);
        self.answer.set(None);
        mem::swap(&mut self.headers, &mut head.headers);
        let link = self.service.link();
        match send(cx, io, out) {
            Poll::Ready(Ok(())) => {
                let now = link.side.clock.now();
                if let Some(flight) = flight {
                    link.on_answer_sent(flight, now);
                }
                Sent::Whole(after, now)
            }
            Poll::Ready(Err(Broken)) => {
                if flight.is_some() {
                    link.on_request_over();
                }
                Sent::Lost
            }
            Poll::Pending => {
                if let Some(flight) = flight {
                    link.on_answer_ended(flight);
                }
                Sent::InPart(after, Bytes::from(mem::take(out)))
            }
        }
    }
}

/// The connection is broken.
struct Broken;

/// Writes and flushes; what is not written yet is left in `out`.
fn send<T: Transport>(cx: &mut Context<'_>, io: &mut T, out: &mut Vec<u8>) -> Poll<Result<(), Broken>> {
    let mut written = 0;
    while written < out.len() {
        match Pin::new(&mut *io).poll_write(cx, &out[written..]) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Broken)),
            Poll::Ready(Ok(more)) => written += more,
            Poll::Pending => {
                drop(out.drain(..written));
                return Poll::Pending;
            }
        }
    }
    let flushed = Pin::new(io).poll_flush(cx);
    if flushed.is_pending() {
        out.clear();
    }
    flushed.map_err(|_| Broken)
}

/// Counts a connection while it has what it takes to answer plain requests.
struct Counted(Arc<Counts>);

impl Counted {
    fn new(counts: Arc<Counts>) -> Self {
        counts.direct.add_one();
        Self(counts)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.direct.take_one();
    }
}
