//! The parsed trace that all oracles share.

mod exceptions;

use super::observed_request::{ObservedRequest, requests};
use crate::{
    scenario::{
        Client, Fault, Outcome, Request, RequestKind, SERVER, Scenario, StopBy, Traffic,
        client_name,
    },
    trace::Record,
};
pub(crate) use exceptions::REFUSED;
use lameduck::lifecycle::{ABORT_FLUSH, Phase, StopReason};
use std::{collections::BTreeMap, time::Duration};

/// How long the host waits at the end for workers that do not return.
const WORKER_RELEASE_MAX: Duration = Duration::from_millis(50);
/// The host's pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Precision of timers of a clock with a different rate.
const SKEW_ROUNDING: Duration = Duration::from_millis(2);
/// Shortest time in which a 503 is certain to be sent.
const FLUSH: Duration = Duration::from_millis(20);

/// A scenario and its outcome, parsed into the terms of the promises.
#[derive(Debug)]
pub struct RunHistory<'a> {
    /// The scenario that was run.
    pub scenario: &'a Scenario,
    /// Outcome of the run.
    pub outcome: &'a Outcome,
    /// The whole trace.
    pub records: Vec<Record>,
    /// Phases in order, each with the index of its record and the simulated time.
    pub phases: Vec<(Phase, usize, Duration)>,
    /// Requests, ordered by client and request number.
    pub requests: Vec<ObservedRequest>,
    /// For each event, the indices of its records.
    places: BTreeMap<&'static str, Vec<usize>>,
    /// For each event and handler, the index of the host's first record.
    of_handlers: BTreeMap<(&'static str, u64), usize>,
    /// When everything but long streams was cancelled, in a drain that continued for these.
    requests_cancelled: Option<Duration>,
}

impl<'a> RunHistory<'a> {
    /// Parses the trace.
    #[must_use]
    pub fn read(scenario: &'a Scenario, outcome: &'a Outcome) -> Self {
        let records = outcome.trace.records();
        let mut phases: Vec<(Phase, usize, Duration)> = records
            .iter()
            .enumerate()
            .filter(|(_, record)| record.event == "phase" && &*record.actor == SERVER)
            .filter_map(|(place, record)| {
                Some((phase_called(record.text("phase")?)?, place, record.at))
            })
            .collect();
        if !outcome.tolerance.is_zero() {
            take_times_of_the_report(&mut phases, outcome);
        }
        let requests = requests(&records, &scenario.clients);
        let mut places: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        let mut of_handlers = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            places.entry(record.event).or_default().push(place);
            let handler = record.number("handler").filter(|_| &*record.actor == SERVER);
            if let Some(handler) = handler {
                of_handlers.entry((record.event, handler)).or_insert(place);
            }
        }
        let mut history = Self {
            scenario,
            outcome,
            records,
            phases,
            requests,
            places,
            of_handlers,
            requests_cancelled: None,
        };
        history.requests_cancelled = history.find_requests_cancelled();
        history
    }

    /// Returns when a phase began, in simulated time. Where long streams outlast the drain, the
    /// others are cancelled in it: for them that is the begin of `Cancelling`.
    #[must_use]
    pub fn began(&self, phase: Phase) -> Option<Duration> {
        let early = self.requests_cancelled().filter(|_| phase == Phase::Cancelling);
        early.or_else(|| self.began_as_a_phase(phase))
    }

    /// Returns when everything but long streams was cancelled, in a drain that continued for these.
    #[must_use]
    pub const fn requests_cancelled(&self) -> Option<Duration> {
        self.requests_cancelled
    }

    fn find_requests_cancelled(&self) -> Option<Duration> {
        const LINE: &str = "requests cancelled; long streams continue";
        let line = self.server("log").find(|record| record.text("message") == Some(LINE))?.at;
        if self.tolerance().is_zero() {
            return Some(line);
        }
        // In real time the line follows the cancellation. That is not early, but a delay of the
        // drain's begin is taken from the requests' part of it (P7).
        let draining = self.began_as_a_phase(Phase::Draining)?;
        let plan = self.scenario.plan();
        let late = self.span(Phase::LameDuck)?.saturating_sub(plan.lame_duck);
        Some(line.min(draining + plan.drain.saturating_sub(late)))
    }

    fn began_as_a_phase(&self, phase: Phase) -> Option<Duration> {
        self.phases.iter().find(|(entered, _, _)| *entered == phase).map(|(_, _, at)| *at)
    }

    /// Returns when the first phase after this one began.
    #[must_use]
    pub fn left(&self, phase: Phase) -> Option<Duration> {
        self.phases.iter().find(|(entered, _, _)| *entered > phase).map(|(_, _, at)| *at)
    }

    /// Returns when the first phase after Serving began.
    #[must_use]
    pub fn left_serving(&self) -> Option<Duration> {
        self.left(Phase::Serving)
    }

    /// Returns when the first phase after LameDuck began. From this moment on the listeners close.
    #[must_use]
    pub fn left_lame_duck(&self) -> Option<Duration> {
        self.left(Phase::LameDuck)
    }

    /// Returns how long a phase lasted by the host's clock, as the report says.
    #[must_use]
    pub fn span(&self, phase: Phase) -> Option<Duration> {
        let report = self.outcome.report.as_ref()?;
        report.phases.iter().find(|(entered, _)| *entered == phase).map(|(_, span)| *span)
    }

    /// Returns the time that a wait of the shutdown has by the host's clock: its limit, or less if
    /// earlier phases were late and the `later` ones need the rest (P7).
    #[must_use]
    pub fn budget(&self, phase: Phase, later: Duration) -> Duration {
        let plan = self.scenario.plan();
        let drain = plan.drain.max(plan.streams);
        let limit = if phase == Phase::Draining { drain } else { plan.cancel };
        let report = self.outcome.report.iter().flat_map(|report| &report.phases);
        let before: Duration = report
            .filter(|(other, _)| *other > Phase::Serving && *other < phase)
            .map(|(_, span)| *span)
            .sum();
        let worst = super::accounting::worst_case(self);
        limit.min(worst.saturating_sub(later).saturating_sub(before))
    }

    /// Returns when the host exited, and its exit code.
    #[must_use]
    pub fn exit(&self) -> Option<(Duration, u64)> {
        self.server("exit").find_map(|record| Some((record.at, record.number("code")?)))
    }

    /// Converts a span of simulated time to the host's clock, rounded down.
    #[must_use]
    pub fn host(&self, span: Duration) -> Duration {
        let rate = 1_000_000 + i128::from(self.scenario.clock_skew_ppm);
        let nanos =
            i128::try_from(span.as_nanos()).unwrap_or(i128::MAX / 2_000_000) * rate / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Precision of timers. Simulated timers are exact to the millisecond, so only a host clock
    /// with a different rate causes rounding. In real time the machine may be late.
    #[must_use]
    pub const fn rounding(&self) -> Duration {
        let skew =
            if self.scenario.clock_skew_ppm == 0 { 0 } else { SKEW_ROUNDING.as_millis() as u64 };
        self.tolerance().saturating_add(Duration::from_millis(skew))
    }

    /// How late anything may happen because the machine is busy; zero in simulated time.
    #[must_use]
    pub const fn tolerance(&self) -> Duration {
        self.outcome.tolerance
    }

    /// How early something may seem to happen whose beginning was recorded before it began, and
    /// whose end after it ended. The machine is never early.
    #[must_use]
    pub const fn early(&self) -> Duration {
        if self.tolerance().is_zero() { self.rounding() } else { Duration::from_millis(1) }
    }

    /// Whether the world's network is close to Linux: it has RST and an accept queue.
    #[must_use]
    pub const fn resets(&self) -> bool {
        self.outcome.resets
    }

    /// How late the end of a wait may be: the [`tolerance`](Self::tolerance), and the time for
    /// which the host waits for workers that are stalled.
    #[must_use]
    pub fn release(&self) -> Duration {
        let stalls = |fault: &Fault| matches!(fault, Fault::Stall { .. });
        if self.scenario.faults.iter().any(stalls) {
            self.world(WORKER_RELEASE_MAX) + self.tolerance()
        } else {
            self.tolerance()
        }
    }

    /// Whether the host's reads and writes are partial.
    #[must_use]
    pub fn has_partial_io(&self) -> bool {
        self.scenario.faults.iter().any(|fault| matches!(fault, Fault::PartialIo { .. }))
    }

    /// Whether a client with an incomplete head delays the close of the internal server.
    #[must_use]
    pub fn has_slow_internal_client(&self) -> bool {
        self.scenario.clients.iter().any(|client| client.traffic.is_internal())
    }

    /// Whether every client waits for its response, and the network delivers all the time.
    #[must_use]
    pub fn all_clients_stay(&self) -> bool {
        let stays = |client: &Client| {
            !matches!(
                client.traffic,
                Traffic::Leaves { .. }
                    | Traffic::Http2Leaves { .. }
                    | Traffic::Http2Windowless { .. }
                    | Traffic::Http2Resets { .. }
                    | Traffic::Http2HalfFrame { .. }
                    | Traffic::Http2Stalls { .. }
                    | Traffic::Stalls { .. }
            )
        };
        self.delivers() && self.scenario.clients.iter().all(stays)
    }

    /// Returns the records of one event that the host or its app made.
    pub fn server(&self, event: &str) -> impl DoubleEndedIterator<Item = &Record> + Clone {
        self.events(event).filter(|record| &*record.actor == SERVER)
    }

    /// Returns the records of one event, in order.
    pub fn events(&self, event: &str) -> impl DoubleEndedIterator<Item = &Record> + Clone {
        self.places(event).map(|(_, record)| record)
    }

    /// Returns the host's first record of this event about the handler of `record`.
    #[must_use]
    pub fn of_its_handler(&self, record: &Record, event: &'static str) -> Option<&Record> {
        let place = self.of_handlers.get(&(event, record.number("handler")?))?;
        self.records.get(*place)
    }

    /// Returns the request of a client with this number.
    #[must_use]
    pub fn request(&self, client: usize, number: u64) -> Option<&ObservedRequest> {
        let key = |observed: &ObservedRequest| (observed.client, observed.number);
        let place = self.requests.binary_search_by_key(&(client, number), key).ok()?;
        self.requests.get(place)
    }

    /// Returns the records of one event that a client made, in order.
    pub fn of_client(
        &self,
        client: usize,
        event: &str,
    ) -> impl DoubleEndedIterator<Item = &Record> + Clone {
        let name = client_name(client);
        self.events(event).filter(move |record| *record.actor == *name)
    }

    /// Returns the records of one event, in order, each with its index.
    pub fn places(&self, event: &str) -> impl DoubleEndedIterator<Item = (usize, &Record)> + Clone {
        let places = self.places.get(event).map_or(&[][..], Vec::as_slice);
        places.iter().map(|place| (*place, &self.records[*place]))
    }

    /// Converts a span of the host's clock to simulated time, rounded up.
    #[must_use]
    pub fn world(&self, span: Duration) -> Duration {
        let rate = 1_000_000 + i128::from(self.scenario.clock_skew_ppm);
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX / 1_000_000) * 1_000_000;
        Duration::from_nanos(u64::try_from((nanos + rate - 1) / rate).unwrap_or(u64::MAX))
    }

    /// Returns how long a request head may take while serving, in simulated time.
    #[must_use]
    pub fn header_timeout(&self) -> Duration {
        self.world(self.scenario.limits.limits().header_timeout)
    }

    /// Longest latency of a packet that no fault holds back.
    #[must_use]
    pub const fn under_way(&self) -> Duration {
        Duration::from_millis(self.scenario.latency_ms.1).saturating_add(self.outcome.grain)
    }

    /// Whether the network delivers all the time.
    #[must_use]
    pub fn delivers(&self) -> bool {
        self.scenario.faults.iter().all(|fault| fault.delivers())
    }

    /// Whether nothing that reaches the host before `by` is lost on the way, or stays in the accept
    /// queue because descriptors are exhausted.
    #[must_use]
    pub fn delivers_by(&self, by: Duration) -> bool {
        let over_by = |at_ms: &u64, for_ms: &u64| {
            Duration::from_millis(at_ms + for_ms) + ACCEPT_PAUSE * 2 < by
        };
        self.scenario.faults.iter().all(|fault| match fault {
            Fault::NoDescriptors { at_ms, for_ms } | Fault::Stall { at_ms, for_ms, .. } => {
                over_by(at_ms, for_ms)
            }
            Fault::Hold { .. } | Fault::ResetAll { .. } => false,
            Fault::PartialIo { .. } | Fault::AcceptAborted | Fault::Downstream { .. } => true,
        })
    }

    /// Returns when the connections that could not be accepted for lack of descriptors were
    /// accepted; `None` if another fault delays or loses something.
    #[must_use]
    pub fn accepts_all_by(&self) -> Option<Duration> {
        self.scenario.faults.iter().try_fold(Duration::ZERO, |by, fault| {
            if let Fault::NoDescriptors { at_ms, for_ms } = fault {
                return Some(by.max(Duration::from_millis(at_ms + for_ms) + ACCEPT_PAUSE * 2));
            }
            fault.delivers().then_some(by)
        })
    }

    /// Whether the app is another than the default one, whose handlers record nothing.
    #[must_use]
    pub fn uses_another_app(&self) -> bool {
        let others = |client: &Client| matches!(client.request_kind, RequestKind::User(_));
        self.scenario.clients.iter().any(others)
    }

    /// Whether a fault may delay something in this span.
    #[must_use]
    pub fn is_disturbed(&self, (from, to): (Duration, Duration)) -> bool {
        let ms = Duration::from_millis;
        self.scenario.faults.iter().any(|fault| match fault {
            Fault::Hold { at_ms, for_ms }
            | Fault::NoDescriptors { at_ms, for_ms }
            | Fault::Stall { at_ms, for_ms, .. } => {
                ms(*at_ms) <= to && from <= ms(at_ms + for_ms) + ACCEPT_PAUSE * 2
            }
            Fault::ResetAll { .. } => true,
            Fault::PartialIo { .. } | Fault::AcceptAborted | Fault::Downstream { .. } => false,
        })
    }

    /// Whether every new connection reaches the host's accept queue and stays in it.
    #[must_use]
    pub fn reaches(&self) -> bool {
        let lost = |fault: &Fault| matches!(fault, Fault::Hold { .. } | Fault::ResetAll { .. });
        !self.scenario.faults.iter().any(lost)
    }

    /// Returns the kind of a request.
    #[must_use]
    pub fn request_kind(&self, observed: &ObservedRequest) -> Option<&RequestKind> {
        self.client(observed).map(|client| client.request_kind_of(observed.kind))
    }

    /// Whether there is time to flush a response before the remaining requests are aborted.
    #[must_use]
    pub fn flushes(&self) -> bool {
        let cancelling = self
            .phases
            .iter()
            .find(|(phase, _, _)| *phase == Phase::Cancelling)
            .map(|(_, place, _)| *place);
        let hurried = self
            .impatient()
            .filter(|(place, _)| cancelling.is_some_and(|cancelling| *place > cancelling));
        // The first signal ends the wait for the handlers, the next one the flush. A signal is
        // recorded before the host receives it.
        // From the abort on, a signal ends the flush.
        let flush = self.scenario.plan().cancel.saturating_sub(ABORT_FLUSH);
        let aborts = self.began(Phase::Cancelling).map(|at| at + self.world(flush));
        let is_in_the_flush =
            |signal: &Record| aborts.is_some_and(|aborts| signal.at + self.rounding() >= aborts);
        let hurried: usize =
            hurried.map(|(_, signal)| 1 + usize::from(is_in_the_flush(signal))).sum();
        let hurried = hurried
            + self
                .impatient()
                .filter(|(_, signal)| Some(signal.at) == self.began(Phase::Cancelling))
                .count();
        let enough = if self.scenario.plan().cancel > ABORT_FLUSH { 2 } else { 1 };
        self.scenario.plan().cancel >= FLUSH && hurried < enough
    }

    /// Whether connections may wait in the kernel's queue for others to close.
    #[must_use]
    pub const fn may_wait_for_room(&self) -> bool {
        self.scenario.limits.connections_max.is_some()
    }

    /// Whether a request may have been sent on a connection whose keep-alive time expired before it
    /// arrived.
    #[must_use]
    pub fn may_cross_an_idle_close(&self, observed: &ObservedRequest) -> bool {
        let Some(keep_alive) = self.scenario.limits.keep_alive else { return false };
        let before = self.requests.iter().find(|other| {
            (other.client, other.connection) == (observed.client, observed.connection)
                && other.earlier + 1 == observed.earlier
        });
        let idle = before.and_then(|before| before.end.as_ref()).map(|(at, _)| *at);
        let keep_alive = self.world(Duration::from_millis(keep_alive));
        idle.is_some_and(|idle| {
            observed.observed + self.under_way() * 2 + self.rounding() >= idle + keep_alive
        })
    }

    /// Whether a request must get a 400 for its `Host`.
    #[must_use]
    pub fn is_refused(&self, observed: &ObservedRequest) -> bool {
        matches!(self.request_kind(observed), Some(RequestKind::Odd(odd)) if odd.is_refused())
    }

    /// Returns the client of a request.
    #[must_use]
    pub fn client(&self, observed: &ObservedRequest) -> Option<&Client> {
        self.scenario.clients.get(observed.client)
    }

    /// Whether a request was sent over HTTP/2.
    #[must_use]
    pub fn is_http2(&self, observed: &ObservedRequest) -> bool {
        let client = self.client(observed);
        let user = client.and_then(|client| client.request_kind.user());
        let step = user.and_then(|first| first.steps().nth(observed.step));
        super::accounting::is_http2(client) || step.is_some_and(Request::is_grpc)
    }

    /// Returns the further stop requests that end a wait, each with the index of its record.
    pub fn impatient(&self) -> impl Iterator<Item = (usize, &Record)> {
        let observed = |record: &Record| {
            &*record.actor == SERVER && matches!(record.event, "signal" | "shutdown handle")
        };
        let stops = self.records.iter().enumerate().filter(move |(_, record)| observed(record));
        stops
            .skip(self.initial_stops())
            .filter(|(_, record)| matches!(record.text("signal"), Some("SIGINT" | "SIGQUIT")))
    }

    /// Returns the number of stop requests that began the shutdown: zero if a failed start or task
    /// began it, or the service itself, otherwise one.
    fn initial_stops(&self) -> usize {
        let reason = self.outcome.report.as_ref().and_then(|report| report.reason);
        let has_handle = self.scenario.stops.iter().any(|stop| stop.by == StopBy::Handle);
        let by_service = reason == Some(StopReason::Requested) && !has_handle;
        usize::from(!by_service && !reason.is_some_and(super::accounting::is_failure))
    }
}

/// Replaces the times at which phases were logged by those of the host's own clock. The report has
/// the spans, and the log line that was written soonest has the beginning.
fn take_times_of_the_report(phases: &mut [(Phase, usize, Duration)], outcome: &Outcome) {
    let Some(report) = &outcome.report else { return };
    let mut since = Duration::ZERO;
    let starts: Vec<Duration> = report
        .phases
        .iter()
        .map(|(_, span)| {
            let start = since;
            since += *span;
            start
        })
        .collect();
    let begins = phases.iter().zip(&starts).map(|((.., at), start)| at.saturating_sub(*start));
    let Some(begin) = begins.min() else { return };
    for ((.., at), start) in phases.iter_mut().zip(&starts) {
        *at = begin + *start;
    }
}

fn phase_called(name: &str) -> Option<Phase> {
    Phase::ALL.into_iter().find(|phase| phase.name() == name)
}
