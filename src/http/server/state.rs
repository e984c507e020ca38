//! State of one server, main or internal, shared by all of its connections.

use super::{
    abort::{AbortCause, AbortedRequest},
    announcement::{Announcement, LameDuck},
    capacity::Capacity,
    caps::Caps,
    client_timeout::{ClientTimeout, gives_up},
    counters::Counter,
    idle_policy::EvictionGrace,
    limits::Limits,
    log_limit::LogLimit,
    outcome::OutcomeObserver,
    server_metrics::ServerMetrics,
    tracked::WorkList,
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Address, Clock, Seed},
};
use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by all connections of a server: the current phase, the phase tokens and the counters.
#[derive(Debug)]
pub(crate) struct ServerState {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: ServerConfig,
    pub(crate) metrics: ServerMetrics,
    pub(crate) capacity: Capacity,
    /// The aborted requests that the shutdown cut: they make the exit code 3.
    pub(crate) aborted_by_stop: Counter,
    /// Work of handlers or background tasks that still ran at the abort and was dropped.
    pub(crate) work_dropped: Counter,
    /// Tracked work and background tasks that panicked.
    pub(crate) work_panicked: Counter,
    pub(super) first_work_panic: OnceLock<String>,
    /// Work that handlers spawned. The drain waits for it.
    pub(crate) tracked_work: TaskTracker,
    /// The same work and the background tasks, by name.
    pub(super) work: Arc<WorkList>,
    pub(crate) tokens: PhaseTokens,
    phase: AtomicU8,
    stopping_since: AtomicU64,
    draining_since: AtomicU64,
    /// [`Reach`] of the abort.
    aborting: AtomicU8,
    /// [`Reach`] of the cut.
    cutting: AtomicU8,
    /// Numbers the long streams, whose ends are drawn from the seed.
    streams: AtomicU64,
    aborts: Mutex<Vec<AbortedRequest>>,
    client_timeouts_logged: LogLimit,
    refused_headers_logged: LogLimit,
    accept_errors_logged: LogLimit,
}

/// Configuration of a server, fixed at its start.
#[derive(Debug)]
pub(crate) struct ServerConfig {
    pub(crate) app_version: Arc<str>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) lame_duck: Duration,
    /// The time over which the ends of long streams are spread.
    pub(crate) streams: Duration,
    pub(crate) limits: Limits,
    pub(crate) close_races: CloseRaces,
    pub(crate) eviction_grace: EvictionGrace,
    pub(crate) seed: Seed,
    pub(crate) outcome_observer: Option<OutcomeObserver>,
    /// The main server, in the internal one. Contexts have its phase, and it waits for their work.
    pub(crate) process: Option<Arc<ServerState>>,
}

/// Whether requests that race with a close are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseRaces {
    Counted,
    /// The internal server's clients retry, and watching for the race would delay the exit.
    Ignored,
}

/// A token for each step of the shutdown, cancelled when that step begins. Requests that are not
/// long streams have separate tokens, since streams may have more time.
#[derive(Clone, Debug)]
pub(crate) struct PhaseTokens {
    /// LameDuck begins.
    pub(crate) stopping: CancellationToken,
    /// Draining begins.
    pub(crate) draining: CancellationToken,
    /// The root context: cancelled at the end of the drain (P10).
    pub(crate) root: CancellationToken,
    /// Ordinary requests are cancelled: at the end of their drain, or with the root context.
    pub(crate) requests: CancellationToken,
    /// Requests and work that ignored the cancellation are dropped.
    pub(crate) abort: CancellationToken,
    /// The same for ordinary requests.
    pub(crate) abort_requests: CancellationToken,
    /// The remaining connections are closed.
    pub(super) cut: CancellationToken,
    /// The remaining connections without a long stream are closed.
    pub(super) cut_requests: CancellationToken,
}

impl Default for PhaseTokens {
    fn default() -> Self {
        let [root, abort, cut] = [(); 3].map(|()| CancellationToken::new());
        Self {
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
            requests: root.child_token(),
            abort_requests: abort.child_token(),
            cut_requests: cut.child_token(),
            root,
            abort,
            cut,
        }
    }
}

/// How far the abort or the cut extends. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Reach {
    Nothing = 0,
    /// Ordinary requests, and connections without a long stream.
    Requests = 1,
    Everything = 2,
}

impl ServerState {
    pub(crate) fn new(clock: Arc<dyn Clock>, config: ServerConfig) -> Self {
        Self {
            clock,
            config,
            metrics: ServerMetrics::default(),
            capacity: Capacity::default(),
            aborted_by_stop: Counter::default(),
            work_dropped: Counter::default(),
            work_panicked: Counter::default(),
            first_work_panic: OnceLock::new(),
            tracked_work: TaskTracker::new(),
            work: Arc::default(),
            tokens: PhaseTokens::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            stopping_since: AtomicU64::new(u64::MAX),
            draining_since: AtomicU64::new(u64::MAX),
            aborting: AtomicU8::new(Reach::Nothing as u8),
            cutting: AtomicU8::new(Reach::Nothing as u8),
            streams: AtomicU64::new(0),
            aborts: Mutex::new(Vec::new()),
            client_timeouts_logged: LogLimit::default(),
            refused_headers_logged: LogLimit::default(),
            accept_errors_logged: LogLimit::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire)).unwrap_or(Phase::Stopped)
    }

    /// Publishes the phase: first one store, which probes and connections read, then the tokens,
    /// which tasks wait for.
    pub(crate) fn publish(&self, phase: Phase, now: Moment) {
        if phase >= Phase::LameDuck {
            self.stopping_since.fetch_min(now.as_nanos(), Ordering::Relaxed);
        }
        if phase >= Phase::Draining {
            self.draining_since.fetch_min(now.as_nanos(), Ordering::Relaxed);
        }
        self.phase.store(phase as u8, Ordering::Release);
        if phase >= Phase::LameDuck {
            self.tokens.stopping.cancel();
        }
        if phase >= Phase::Draining {
            self.tokens.draining.cancel();
        }
    }

    /// Cancels the root context (P10).
    pub(crate) fn cancel_root(&self) {
        self.tokens.root.cancel();
    }

    /// Drops requests and work that ignored the cancellation. Responses may still be flushed.
    pub(crate) fn abort(&self) {
        self.aborting.fetch_max(Reach::Everything as u8, Ordering::Release);
        self.tokens.abort.cancel();
    }

    /// Cancels the contexts of ordinary requests: all but long streams.
    pub(crate) fn cancel_requests(&self) {
        self.tokens.requests.cancel();
        for worker in self.metrics.workers() {
            // Also those that have ended: their work or their upgraded connection continues.
            for token in worker.ordinary_tokens.entries() {
                token.cancel();
            }
        }
    }

    /// Drops ordinary requests, and their work, that ignored the cancellation.
    pub(crate) fn abort_requests(&self) {
        self.aborting.fetch_max(Reach::Requests as u8, Ordering::Release);
        self.tokens.abort_requests.cancel();
    }

    /// Closes the remaining connections that carry no long stream.
    pub(crate) fn cut_requests(&self) {
        self.abort_requests();
        self.cutting.fetch_max(Reach::Requests as u8, Ordering::Release);
        self.tokens.cut_requests.cancel();
    }

    /// Closes the remaining connections.
    pub(crate) fn cut(&self) {
        self.abort();
        self.cutting.fetch_max(Reach::Everything as u8, Ordering::Release);
        self.tokens.cut.cancel();
    }

    pub(crate) fn is_aborting(&self) -> bool {
        self.aborting.load(Ordering::Acquire) == Reach::Everything as u8
    }

    /// Whether ordinary requests are dropped.
    pub(crate) fn is_aborting_requests(&self) -> bool {
        self.aborting.load(Ordering::Acquire) >= Reach::Requests as u8
    }

    pub(crate) fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Acquire) == Reach::Everything as u8
    }

    /// Whether a connection is closed, flushed or not. `has_stream`: it carries a long stream.
    pub(crate) fn is_cutting_connection(&self, has_stream: impl FnOnce() -> bool) -> bool {
        let reach = self.cutting.load(Ordering::Acquire);
        reach >= Reach::Requests as u8 && (reach == Reach::Everything as u8 || !has_stream())
    }

    /// Returns a number for a long stream, from which its end is drawn.
    pub(crate) fn number_stream(&self) -> u64 {
        // Connections draw from the numbers at the other end.
        !self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns when a long stream ends in the drain: at a moment drawn from the seed, evenly over
    /// the budget of streams, so that its clients do not reconnect at once. `NEVER` before the
    /// drain.
    pub(crate) fn stream_end(&self, number: u64) -> Moment {
        let nanos = u64::try_from(self.config.streams.as_nanos()).unwrap_or(u64::MAX);
        let part = (u128::from(nanos) * u128::from(self.config.seed.nth(number))) >> 64;
        self.draining_since() + Duration::from_nanos(u64::try_from(part).unwrap_or(nanos))
    }

    /// Returns when the stop was requested; `NEVER` before.
    pub(crate) fn stopping_since(&self) -> Moment {
        Moment::from_nanos(self.stopping_since.load(Ordering::Relaxed))
    }

    /// Returns the lame duck delay, once a stop was requested.
    pub(crate) fn lame_duck(&self) -> LameDuck {
        LameDuck::new(self.stopping_since(), self.config.lame_duck)
    }

    /// Returns the announcement of a connection that is opened `now`. `number` is unique to it.
    pub(crate) fn announcement(&self, now: Moment, number: impl FnOnce() -> u64) -> Announcement {
        let jitter = || self.config.seed.nth(number());
        match (self.phase(), self.config.limits.connection_age_max) {
            (Phase::LameDuck, _) => Announcement::opened_in(self.lame_duck(), now, jitter()),
            // Workers accept before Serving is published.
            (Phase::Starting | Phase::Serving, Some(age_max)) => {
                Announcement::aging(now, age_max, jitter())
            }
            _ => Announcement::OPENED_BEFORE,
        }
    }

    /// Returns when the drain began; `NEVER` before.
    pub(crate) fn draining_since(&self) -> Moment {
        Moment::from_nanos(self.draining_since.load(Ordering::Relaxed))
    }

    /// Returns the caps that users cannot set.
    pub(crate) const fn caps(&self) -> &Caps {
        self.config.limits.fixed()
    }

    /// Whether the connection limit is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.metrics.connections().open() >= self.config.limits.connections_max as u64
    }

    /// Returns the number of connections above the limit, until those that make room have closed.
    pub(crate) fn connections_in_excess(&self) -> usize {
        let open = self.metrics.connections().open() as usize;
        open.saturating_sub(self.config.limits.connections_max)
    }

    /// Whether a further connection would be too many even if an existing one makes room for it.
    pub(crate) fn is_over_full(&self) -> bool {
        self.caps().evicted_at_once.is_reached_by(self.connections_in_excess())
    }

    /// Whether connections in the middle of a request or a response make room, too.
    pub(crate) const fn evicts_busy(&self) -> bool {
        self.config.eviction_grace.client.is_some()
    }

    /// Returns the moment at which a client without progress since `since` is given up.
    pub(crate) fn gives_up(&self, since: Moment, timeout: ClientTimeout) -> Moment {
        gives_up(since, timeout.limit(&self.config.limits), self.draining_since())
    }

    /// Returns the cause that ends the wait for a client without progress since `since`: the
    /// client, if it had the whole timeout; otherwise the drain, which waits for less.
    pub(crate) fn stall_cause(
        &self,
        since: Moment,
        timeout: ClientTimeout,
        now: Moment,
    ) -> AbortCause {
        if now >= since + timeout.limit(&self.config.limits) {
            AbortCause::Client
        } else {
            AbortCause::Shutdown
        }
    }

    /// Whether requests that race with a close are counted. Not on the internal server.
    pub(crate) fn tracks_close_races(&self) -> bool {
        self.config.close_races == CloseRaces::Counted
    }

    /// Counts a client timeout. Logs it, except on the internal server, whose limits are shorter
    /// than the settings. At most one line per second is logged, with the number of other timeouts
    /// since the last line.
    pub(crate) fn note_client_timeout(
        &self,
        timeout: ClientTimeout,
        peer: &Address,
        path: Option<&str>,
    ) {
        match timeout {
            ClientTimeout::Send => self.metrics.send_timeouts.add_one(),
            ClientTimeout::Body => self.metrics.body_timeouts.add_one(),
        }
        if self.config.process.is_some() {
            return;
        }
        let Some(suppressed) = self.client_timeouts_logged.admit(self.clock.now()) else { return };
        let limit_ms = millis(timeout.limit_in(self.phase(), &self.config.limits));
        let timeout = timeout.name();
        crate::log::warn!(timeout, limit_ms, %peer, path, suppressed, "client timed out");
    }

    /// Counts a connection without a valid PROXY header, and logs it. At most one line per second
    /// is logged, with the number of others since the last line.
    pub(crate) fn note_refused_header(&self, peer: &Address, error: &dyn fmt::Display) {
        self.metrics.proxy_headers_refused.add_one();
        if let Some(suppressed) = self.refused_headers_logged.admit(self.clock.now()) {
            crate::log::warn!(%peer, %error, suppressed, "PROXY header refused");
        }
    }

    /// Counts an accept that failed for lack of resources. If it is the `first` one after an accept
    /// that succeeded, logs it: at most one line per second, with the number of others since the
    /// last line.
    pub(crate) fn note_accept_error(&self, address: &Address, error: &io::Error, first: bool) {
        self.metrics.accept_errors.add_one();
        if !first {
            return;
        }
        if let Some(suppressed) = self.accept_errors_logged.admit(self.clock.now()) {
            crate::log::warn!(
                %error,
                %address,
                suppressed,
                "cannot accept connections; retrying every 20 ms"
            );
        }
    }

    /// Logs an aborted request, and lists it for the report. A request of the internal server is no
    /// request of the service: the report does not count it, and the log does not name it.
    pub(crate) fn record_abort(&self, request: AbortedRequest) {
        if self.config.process.is_some() {
            return;
        }
        crate::log::warn!(
            method = request.method,
            path = request.path,
            age_ms = millis(request.age),
            phase = request.phase.name(),
            head_sent = request.head_sent,
            by_shutdown = request.by_shutdown,
            "request aborted"
        );
        let mut aborts = self.aborts.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.caps().aborts_listed_max.is_reached_by(aborts.len()) {
            aborts.push(request);
        }
    }

    pub(crate) fn aborts(&self) -> Vec<AbortedRequest> {
        self.aborts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns whole milliseconds, for logs.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
