//! The body of an answer, on its way to hyper: it carries the request's fate to its end.

use super::{
    DrainClass,
    berth::Writes,
    framing::{LengthError, check_length},
    link::{Link, Protocol},
    piece::Piece,
    request::{Cutter, Flight},
};
use crate::{errors::Chain, unwind::catch};
use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

pin_project! {
    /// The body of an answer.
    #[derive(Debug)]
    pub(crate) struct Answer<B> {
        #[pin]
        source: Source<B>,
        progress: Progress,
    }

    impl<B> PinnedDrop for Answer<B> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_body();
        }
    }
}

pin_project! {
    #[project = SourceProjection]
    #[derive(Debug)]
    enum Source<B> {
        /// The handler's own.
        Own { #[pin] body: B },
        /// The handler's own, of which nothing is sent.
        Unsent { #[pin] body: B },
        /// A line of ours.
        Line { line: Option<Bytes> },
        /// An answer that was begun elsewhere, and could not be ended there. It sees to its request's fate.
        Begun { answer: BegunAnswer<B> },
    }
}

/// An answer that was polled, and must stay where it is.
pub(crate) type BegunAnswer<B> = Pin<Box<Option<Answer<B>>>>;

/// What became of the body so far. In a type of its own, so that it can have a `Drop`.
#[derive(Debug)]
struct Progress {
    /// `None` once the request has its fate.
    flight: Option<Flight>,
    /// What is left of a piece that is handed over in parts.
    rest: Option<Box<Bytes>>,
    /// What is left of the length that the head promised, if it did.
    owed: Option<u64>,
    /// Whether dropping the body now means that it was sent whole.
    whole: bool,
    class: DrainClass,
    turn: Turn,
    ahead: Ahead,
    waits: Option<Box<Waits>>,
    /// The end of an HTTP/2 response, with its trailers, while much of the response waits for the client.
    held_end: Option<Option<Box<HeaderMap>>>,
}

/// What was polled of the body after the bytes that its head promised.
#[derive(Debug)]
enum Ahead {
    Nothing,
    End,
    Trailers(Box<HeaderMap>),
}

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The client's: there is something for it, or there was.
    Clients,
    /// Ours: the body waits for its next piece.
    Ours,
}

/// What wakes a body that waits. Made at its first wait: most bodies never do.
#[derive(Debug)]
struct Waits {
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Whether a body can be seen to end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    OfItsEnd,
    OfNone,
}

/// Why a body broke off.
#[derive(Debug)]
pub(crate) enum Broken {
    Own(Box<dyn Error + Send + Sync>),
    Panicked,
    /// It ended so many bytes before the length that its head promised.
    Short(u64),
    /// It has more bytes than its head promised.
    Long,
    Cut,
}

impl<B> Answer<B> {
    /// The handler's own. `promised`: how long the body will be, by its head.
    pub(crate) fn own(body: B, flight: Flight, class: DrainClass, promised: Option<u64>) -> Self
    where
        B: HttpBody,
    {
        let mut progress = Progress::whole(Some(flight));
        progress.class = class;
        progress.owed = promised;
        progress.whole = progress.is_last(body.is_end_stream());
        Self { source: Source::Own { body }, progress }
    }

    /// A body where HTTP forbids content. None of it is sent.
    pub(crate) fn unsent(body: B, flight: Flight) -> Self {
        Self { source: Source::Unsent { body }, progress: Progress::whole(Some(flight)) }
    }

    /// The body of a response to HEAD over HTTP/1. hyper asks for its length and not for its bytes.
    pub(crate) fn asked_for_its_length(body: B, flight: Flight) -> Self {
        Self { source: Source::Own { body }, progress: Progress::whole(Some(flight)) }
    }

    /// A line of ours, if there may be one. Its request has its fate already, unless `flight` still awaits one.
    pub(crate) fn line(line: Option<Bytes>, flight: Option<Flight>) -> Self {
        Self { source: Source::Line { line }, progress: Progress::whole(flight) }
    }

    /// One that was begun elsewhere.
    pub(crate) fn begun(answer: BegunAnswer<B>) -> Self {
        Self { source: Source::Begun { answer }, progress: Progress::whole(None) }
    }

    /// The connection, if this response makes it speak another protocol.
    pub(crate) fn switching(&self, status: StatusCode) -> Option<&Arc<Link>> {
        let flight = self.progress.flight.as_ref()?;
        flight.request().switches_protocol(status).then(|| flight.link())
    }

    /// Dropping a body runs its code, which may panic like any other: here, and not where hyper drops what it has no more use for,
    /// and would go down with it. What was sent whole stays whole.
    fn drop_body(self: Pin<&mut Self>) {
        let mut me = self.project();
        if let Err(panic) = catch(|| me.source.set(Source::Line { line: None })) {
            me.progress.note_panic(&panic);
        }
    }

    /// Breaks the answer off, so that it cannot look whole.
    #[cold]
    fn break_off(mut self: Pin<&mut Self>, why: &Broken) {
        // While the request is known by its name.
        self.as_mut().drop_body();
        self.project().progress.tear(why);
    }
}

impl<B> Answer<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_own(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Broken>>> {
        let me = self.project();
        let mut body = match me.source.project() {
            SourceProjection::Line { line } => {
                return Poll::Ready(line.take().map(|line| Ok(Frame::data(me.progress.piece(line, true)))));
            }
            SourceProjection::Unsent { .. } => return Poll::Ready(None),
            SourceProjection::Begun { answer } => {
                return answer.as_mut().as_pin_mut().map_or(Poll::Ready(None), |answer| answer.poll_frame(cx));
            }
            SourceProjection::Own { body } => body,
        };
        if me.progress.held_end.is_some() {
            return me.progress.poll_held_end(cx);
        }
        if let Some(rest) = me.progress.rest.take() {
            let ends = matches!(me.progress.ahead, Ahead::End) || body.is_end_stream();
            let piece = me.progress.hand_over(*rest, ends);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match std::mem::replace(&mut me.progress.ahead, Ahead::Nothing) {
            Ahead::Nothing => {}
            Ahead::End => {
                me.progress.ahead = Ahead::End;
                return me.progress.poll_end(cx);
            }
            Ahead::Trailers(trailers) => {
                me.progress.ahead = Ahead::End;
                let Some(trailers) = me.progress.hold_trailers(Frame::trailers(*trailers)) else {
                    return me.progress.poll_held_end(cx);
                };
                return Poll::Ready(Some(Ok(trailers.map_data(|bytes| me.progress.piece(bytes, false)))));
            }
        }
        // What a handler answered when it was cancelled may meet the abort in the same instant: what is ready and ends is sent
        // all the same, as a handler that is ready is heard. Only what is waited for, or has no end in sight, is cut.
        let ends = body.is_end_stream() || body.size_hint().exact().is_some();
        if let Some(end) = me.progress.check_end(if ends { Sight::OfItsEnd } else { Sight::OfNone }) {
            return Poll::Ready(end);
        }
        let polled = catch(|| body.as_mut().poll_frame(cx));
        me.progress.pass(if matches!(polled, Ok(Poll::Pending)) { Turn::Ours } else { Turn::Clients });
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let frame = match me.progress.keep_promise(frame) {
                    Ok(frame) => frame,
                    Err(broken) => return Poll::Ready(Some(Err(broken))),
                };
                // Trailers end it.
                me.progress.whole = true;
                let Some(frame) = me.progress.hold_trailers(frame) else { return me.progress.poll_held_end(cx) };
                let mut ends = body.is_end_stream();
                if !ends && me.progress.is_all_promised() {
                    match me.progress.look_ahead(body.as_mut(), cx) {
                        Ok(ended) => ends = ended,
                        Err(broken) => return Poll::Ready(Some(Err(broken))),
                    }
                }
                Poll::Ready(Some(Ok(frame.map_data(|bytes| me.progress.hand_over(bytes, ends)))))
            }
            Ok(Poll::Ready(None)) => match me.progress.end() {
                Ok(()) => me.progress.poll_end(cx),
                Err(broken) => Poll::Ready(Some(Err(broken))),
            },
            Ok(Poll::Ready(Some(Err(error)))) => Poll::Ready(Some(Err(Broken::Own(error.into())))),
            Ok(Poll::Pending) => me.progress.wait(cx),
            Err(panic) => {
                me.progress.note_panic(&panic);
                Poll::Ready(Some(Err(Broken::Panicked)))
            }
        }
    }
}

// Before the head is sent.
impl<B> Answer<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// The request, unless it has its outcome.
    pub(super) fn flight(&self) -> Option<&Flight> {
        match &self.source {
            Source::Begun { answer } => answer.as_ref().get_ref().as_ref()?.flight(),
            Source::Own { .. } | Source::Unsent { .. } | Source::Line { .. } => self.progress.flight.as_ref(),
        }
    }

    /// Whether the body may be as long as the head `says`.
    pub(super) fn check_length(&self, says: u64) -> Result<(), LengthError> {
        match &self.source {
            Source::Own { body } => check_length(says, body),
            Source::Unsent { .. } | Source::Line { .. } | Source::Begun { .. } => Ok(()),
        }
    }

    /// Whether the head promises no byte and the body may have some. hyper would not poll it.
    pub(super) fn may_break_an_empty_promise(&self) -> bool {
        matches!(self.source, Source::Own { .. }) && self.progress.is_all_promised() && !HttpBody::is_end_stream(self)
    }

    /// Polls a body that may break an empty promise. Ready if it did, and its request is aborted.
    #[cold]
    pub(super) fn poll_before_the_head(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let note = |answer: &Self, sent| answer.flight().map(|flight| flight.note_head_sent(sent));
        note(&self, false);
        let polled = self.as_mut().poll_frame(cx);
        note(&self, true);
        if matches!(polled, Poll::Ready(Some(Err(_)))) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Aborts the request, and drops the body unsent.
    #[cold]
    pub(super) fn refuse(self, why: &LengthError) {
        let mut answer = Box::pin(self);
        answer.as_mut().drop_body();
        let progress = answer.as_mut().project().progress;
        progress.pass(Turn::Clients);
        let Some(flight) = progress.flight.take() else { return };
        flight.log_refusal(why);
        flight.note_head_sent(false);
        flight.link().on_request_over();
        flight.abort(Cutter::Body);
    }
}

// For whoever writes an answer without hyper.
impl<B> Answer<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// The body, if one poll gets all of it, and `None` if it broke off. Pending, it goes on as if it had not been asked.
    pub(crate) fn poll_whole(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(Ok(frame)) = ready!(self.as_mut().poll_frame(cx)) else { return Poll::Ready(None) };
        let Ok(mut piece) = frame.into_data() else { return Poll::Ready(None) };
        let bytes = piece.copy_to_bytes(piece.remaining());
        let progress = self.project().progress;
        if progress.whole {
            return Poll::Ready(Some(bytes));
        }
        progress.rest = Some(Box::new(bytes));
        Poll::Pending
    }

    /// All of it was taken: its request, unless that has its fate.
    pub(crate) fn end(mut self: Pin<&mut Self>) -> Option<Flight> {
        // While the request is known by its name.
        self.as_mut().drop_body();
        self.project().progress.flight.take()
    }
}

impl<B> HttpBody for Answer<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Piece;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Broken>>> {
        let polled = self.as_mut().poll_own(cx);
        if let Poll::Ready(Some(Err(why))) = &polled {
            self.break_off(why);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            // One that ends too soon is asked once more, to say so.
            Source::Own { body } => {
                self.progress.rest.is_none()
                    && self.progress.owed.is_none_or(|owed| owed == 0)
                    && (matches!(self.progress.ahead, Ahead::End) || body.is_end_stream())
            }
            Source::Unsent { .. } => true,
            Source::Line { line } => line.is_none(),
            Source::Begun { answer } => answer.as_ref().get_ref().as_ref().is_none_or(HttpBody::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Unsent { .. } => SizeHint::with_exact(0),
            // The class of an endless stream may end it early; what has an exact size is not endless.
            Source::Own { body } => match (&self.progress.rest, self.progress.owed) {
                // Begun elsewhere: of what was taken of it, nothing was sent.
                (Some(rest), Some(owed)) => SizeHint::with_exact(rest.len() as u64 + owed),
                (Some(_), None) | (None, _) => body.size_hint(),
            },
            Source::Line { line } => SizeHint::with_exact(line.as_ref().map_or(0, |line| line.len() as u64)),
            Source::Begun { answer } => match answer.as_ref().get_ref() {
                Some(answer) => answer.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

/// More than this is not copied together with its head, but for the first answer of a connection.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// The number of empty frames after the promised bytes that are skipped in search of the end.
const EMPTY_FRAMES_MAX: usize = 16;

/// And of that no more at once than this.
const PIECE_BYTES_MAX: usize = 64 * 1024;

impl Progress {
    /// Of an answer that would be whole without another byte.
    const fn whole(flight: Option<Flight>) -> Self {
        let class = DrainClass::Finish;
        Self {
            flight,
            rest: None,
            owed: None,
            whole: true,
            class,
            turn: Turn::Clients,
            ahead: Ahead::Nothing,
            waits: None,
            held_end: None,
        }
    }

    fn piece(&self, bytes: Bytes, ends: bool) -> Piece {
        Piece::of(self.flight.as_ref().map(Flight::request), bytes, ends)
    }

    /// Holds a frame against the length that was promised.
    fn keep_promise(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broken> {
        let Some(owed) = &mut self.owed else { return Ok(frame) };
        let Some(bytes) = frame.data_ref() else { return self.end().map(|()| frame) };
        *owed = owed.checked_sub(bytes.len() as u64).ok_or(Broken::Long)?;
        Ok(frame)
    }

    /// Whether the bytes that were promised are all there. With HTTP/1 hyper then polls no more.
    fn is_all_promised(&self) -> bool {
        self.owed == Some(0) && self.flight.as_ref().is_some_and(|flight| flight.link().protocol == Protocol::Http1)
    }

    /// Polls the body for what comes after the promised bytes, before the last of them are sent: once sent, they look whole.
    /// Returns whether the body has ended. A body that waits there is taken for whole, since it may wait for ever.
    fn look_ahead<B>(&mut self, mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Result<bool, Broken>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        for _ in 0..EMPTY_FRAMES_MAX {
            let polled = catch(|| body.as_mut().poll_frame(cx)).map_err(|panic| {
                self.note_panic(&panic);
                Broken::Panicked
            })?;
            match polled {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => {
                    self.ahead = Ahead::End;
                    return Ok(true);
                }
                Poll::Ready(Some(Err(error))) => return Err(Broken::Own(error.into())),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(_) => return Err(Broken::Long),
                    Err(frame) => {
                        self.ahead =
                            frame.into_trailers().map_or(Ahead::End, |trailers| Ahead::Trailers(Box::new(trailers)));
                        return Ok(false);
                    }
                },
            }
        }
        Ok(false)
    }

    /// The body has ended.
    const fn end(&mut self) -> Result<(), Broken> {
        match self.owed {
            None | Some(0) => {
                self.whole = true;
                Ok(())
            }
            Some(owed) => Err(Broken::Short(owed)),
        }
    }

    /// Whether hyper will not ask for more. With HTTP/1 it does not once it has what was promised, whether the body has ended or not.
    fn is_last(&self, ends: bool) -> bool {
        match self.owed {
            None => ends,
            Some(0) => ends || self.is_all_promised(),
            Some(_) => false,
        }
    }

    /// A piece of the handler's, or its beginning. `ends`: the body has no other behind it.
    fn hand_over(&mut self, mut bytes: Bytes, ends: bool) -> Piece {
        if bytes.len() > COPIED_BYTES_MAX
            && let Some(link) = self.flight.as_ref().map(Flight::link)
            && link.writes == Writes::AsOne
        {
            link.on_large();
            if bytes.len() > PIECE_BYTES_MAX {
                self.rest = Some(Box::new(bytes.split_off(PIECE_BYTES_MAX)));
            }
        }
        if self.rest.is_none() && self.is_last(ends) {
            self.rest = self.split_last(&mut bytes);
        }
        self.whole = self.rest.is_none() && self.is_last(ends);
        if let Some(flight) = self.flight.as_mut().filter(|_| !self.whole) {
            flight.list();
        }
        self.piece(bytes, self.whole)
    }

    /// Whether the end of the response must wait. hyper is done with an HTTP/2 stream once it has handed the end to h2, which may hold
    /// megabytes of it for ever; nobody could reset the stream then.
    fn must_hold_end(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.request().unwritten() > COPIED_BYTES_MAX as u64)
    }

    fn hold_trailers(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        if frame.is_data() || !self.must_hold_end() {
            return Some(frame);
        }
        self.held_end = Some(frame.into_trailers().ok().map(Box::new));
        None
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Broken>>> {
        if !self.must_hold_end() {
            return Poll::Ready(None);
        }
        self.held_end = Some(None);
        self.poll_held_end(cx)
    }

    /// The end, once all before it was written.
    fn poll_held_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Broken>>> {
        if self.flight.as_ref().is_some_and(|flight| flight.request().poll_written(cx).is_pending()) {
            return Poll::Pending;
        }
        let trailers = self.held_end.take().flatten();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))))
    }

    /// The last byte of a large chunk of HTTP/2 goes alone, for the same reason: hyper hands it over, and the end with it, only once the
    /// client has room for all before.
    fn split_last(&mut self, bytes: &mut Bytes) -> Option<Box<Bytes>> {
        let is_large = bytes.len() > COPIED_BYTES_MAX;
        let is_http2 = self.flight.as_ref().is_some_and(|flight| flight.link().protocol == Protocol::Http2);
        (is_large && is_http2).then(|| Box::new(bytes.split_off(bytes.len() - 1)))
    }

    /// It is the other's move now.
    fn pass(&mut self, turn: Turn) {
        if let Some(flight) = self.flight.as_ref().filter(|_| self.turn != turn) {
            match turn {
                Turn::Ours => flight.link().on_our_turn(),
                Turn::Clients => flight.link().on_our_turn_over(),
            }
            self.turn = turn;
        }
    }

    /// Whether the shutdown ends this body here.
    fn check_end(&mut self, sight: Sight) -> Option<Option<Result<Frame<Piece>, Broken>>> {
        let side = self.flight.as_ref()?.side();
        if side.is_aborting() && sight == Sight::OfNone {
            return Some(Some(Err(Broken::Cut)));
        }
        let ended = match self.class {
            DrainClass::Finish => false,
            DrainClass::EndAtDraining => side.moments.draining.is_cancelled(),
            DrainClass::EndAtCancel => side.moments.root.is_cancelled(),
        };
        if ended {
            self.whole = true;
            return Some(None);
        }
        None
    }

    /// Arranges to be woken when the shutdown ends this body.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Broken>>> {
        let Some(flight) = &mut self.flight else { return Poll::Pending };
        flight.list();
        flight.request().note_half_closed();
        let moments = &flight.side().moments;
        let class = self.class;
        let waits = self.waits.get_or_insert_with(|| {
            let end = match class {
                DrainClass::Finish => None,
                DrainClass::EndAtDraining => Some(&moments.draining),
                DrainClass::EndAtCancel => Some(&moments.root),
            };
            Box::new(Waits {
                abort: Box::pin(moments.abort.clone().cancelled_owned()),
                end: end.map(|end| Box::pin(end.clone().cancelled_owned())),
            })
        });
        let aborted = waits.abort.as_mut().poll(cx).is_ready();
        let ended = waits.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if aborted || ended {
            // Told between the check and the wait.
            return self.check_end(Sight::OfNone).map_or(Poll::Pending, Poll::Ready);
        }
        Poll::Pending
    }

    fn note_panic(&self, panic: &str) {
        if let Some(flight) = &self.flight {
            flight.note_panicked();
        }
        let (method, path) = self.flight.as_ref().map(Flight::name).unzip();
        crate::log::error!(panic, method, path, "a response body panicked");
    }

    /// The request ends here, and on HTTP/1 its connection with it.
    fn tear(&mut self, why: &Broken) {
        self.pass(Turn::Clients);
        let Some(flight) = self.flight.take() else { return };
        let cutter = match why {
            Broken::Cut => Cutter::Shutdown,
            Broken::Own(_) | Broken::Panicked | Broken::Short(_) | Broken::Long => Cutter::Body,
        };
        let error: Option<&(dyn Error + 'static)> = match why {
            Broken::Own(error) => Some(&**error),
            Broken::Short(_) | Broken::Long => Some(why),
            // The panic said more, and the shutdown says it as it aborts.
            Broken::Panicked | Broken::Cut => None,
        };
        if let Some(error) = error {
            let (method, path) = flight.name();
            crate::log::error!(error = %Chain(error), method, path, "a response body failed");
        }
        let link = flight.link().clone();
        if link.protocol == Protocol::Http1 {
            link.on_torn(cutter);
        }
        link.on_request_over();
        flight.abort(cutter);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.pass(Turn::Clients);
        let Some(flight) = self.flight.take() else { return };
        let link = flight.link().clone();
        if self.whole {
            link.on_answer_ended(flight);
        } else {
            link.on_request_over();
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(error) => write!(f, "the response body failed: {error}"),
            Self::Panicked => f.write_str("the response body panicked"),
            Self::Short(missing) => write!(f, "the response body ended {missing} bytes before its content-length"),
            Self::Long => f.write_str("the response body is longer than its content-length"),
            Self::Cut => f.write_str("the response was cut by the shutdown"),
        }
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Own(error) => Some(&**error),
            Self::Panicked | Self::Short(_) | Self::Long | Self::Cut => None,
        }
    }
}
