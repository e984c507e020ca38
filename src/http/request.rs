//! One request: what is known of it, and its one fate (P5).

use super::{
    link::Link,
    side::{AbortedRequest, Side},
};
use crate::lifecycle::{Moment, Phase};
use http::{Method, Uri};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use tokio_util::sync::CancellationToken;

/// What is known of a request. The handler sees it as a [`RequestContext`](super::RequestContext).
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) side: Arc<Side>,
    pub(crate) link: Arc<Link>,
    pub(crate) arrived: Moment,
    method: Method,
    uri: Uri,
    deadline: AtomicU64,
    head_sent: AtomicBool,
    /// Bytes of the answer that HTTP/2 holds and has not written.
    unwritten: AtomicU64,
    /// HTTP/2 threw some of them away.
    thrown_away: AtomicBool,
    cancellation: OnceLock<CancellationToken>,
}

impl Request {
    pub(crate) fn new(side: Arc<Side>, link: Arc<Link>, arrived: Moment, method: Method, uri: Uri) -> Self {
        let deadline = side.config.request_timeout.map_or(Moment::NEVER, |timeout| arrived + timeout);
        Self {
            side,
            link,
            arrived,
            method,
            uri,
            deadline: AtomicU64::new(deadline.as_nanos()),
            head_sent: AtomicBool::new(false),
            unwritten: AtomicU64::new(0),
            thrown_away: AtomicBool::new(false),
            cancellation: OnceLock::new(),
        }
    }

    /// Its method, and its path without the query, which may be nobody's business: what logs call it.
    pub(crate) fn name(&self) -> (&str, &str) {
        (self.method.as_str(), self.uri.path())
    }

    /// When the head of the answer must be there; `NEVER` if it need not.
    pub(crate) fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Relaxed))
    }

    pub(crate) fn set_deadline(&self, at: Moment) {
        self.deadline.store(at.as_nanos(), Relaxed);
    }

    // Told by the pieces of the answer.

    pub(crate) fn note_taken(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn note_written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes as u64, Relaxed);
    }

    pub(crate) fn note_thrown_away(&self, bytes: usize) {
        self.thrown_away.store(true, Relaxed);
        self.unwritten.fetch_sub(bytes as u64, Relaxed);
    }

    /// How much of an answer that has ended was written.
    pub(crate) fn sent(&self) -> Sent {
        if self.thrown_away.load(Relaxed) {
            Sent::NeverWhole
        } else if self.unwritten.load(Relaxed) > 0 {
            Sent::NotYet
        } else {
            Sent::All
        }
    }

    /// Made when somebody asks: most handlers never do.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| self.side.moments.root.child_token())
    }
}

/// How much of an answer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    NotYet,
    /// Its stream was reset.
    NeverWhole,
}

/// A request in flight. Whoever holds it owes it a fate; dropped without one, it was cut or the client left.
#[derive(Debug)]
pub(crate) struct Flight {
    request: Arc<Request>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Settled,
}

impl Flight {
    pub(crate) fn begin(request: Arc<Request>) -> Self {
        request.side.tally.started.add_one();
        Self { request, fate: Fate::Open }
    }

    pub(crate) fn request(&self) -> &Arc<Request> {
        &self.request
    }

    pub(crate) fn note_head_sent(&self) {
        self.request.head_sent.store(true, Relaxed);
    }

    /// The handler's own answer was handed to the kernel whole.
    pub(crate) fn finish(mut self) {
        self.fate = Fate::Settled;
        self.request.side.tally.finished.add_one();
    }

    /// Its deadline came first.
    pub(crate) fn time_out(mut self) {
        self.fate = Fate::Settled;
        self.request.side.tally.timed_out.add_one();
        self.request.cancellation().cancel();
    }

    /// We cut it.
    pub(crate) fn abort(mut self) {
        self.settle_aborted();
    }

    fn settle_aborted(&mut self) {
        self.fate = Fate::Settled;
        let request = &self.request;
        request.side.tally.aborted.add_one();
        if request.side.phase() >= Phase::Draining {
            request.side.aborted_by_stop.add_one();
        }
        request.side.note_abort(AbortedRequest {
            method: request.method.to_string(),
            path: request.uri.path().to_owned(),
            age: request.side.clock.now().since(request.arrived),
            // The cut ends the cancel wait; that its workers carry it out a moment later is nobody's business.
            phase: request.side.phase().min(Phase::Cancelling),
            head_sent: request.head_sent.load(Relaxed),
        });
        request.cancellation().cancel();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.fate == Fate::Settled {
            return;
        }
        if self.request.side.is_aborting() || self.request.link.is_torn() {
            self.settle_aborted();
        } else {
            self.request.side.tally.gone.add_one();
            self.request.cancellation().cancel();
        }
    }
}

/// Whether answers must tell their client to go.
pub(crate) fn tells_to_go(phase: Phase) -> bool {
    phase >= Phase::LameDuck
}
