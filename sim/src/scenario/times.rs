//! All times of a scenario, by their kind.

use super::{Client, Fault, Pacing, RareRequest, RequestKind, Scenario, Traffic};
use std::iter;

/// What a time of a scenario is the length or the moment of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeOf {
    /// A phase, or a request to stop.
    Edge,
    /// The beginning of a client, or of a fault.
    Begin,
    /// The work of a handler, a task or a hook.
    Work,
    /// A timeout of the host.
    Timeout,
    /// A pause of a client.
    Pause,
}

/// A time of a scenario.
#[derive(Debug)]
pub(crate) struct Time<'a> {
    pub(crate) of: TimeOf,
    /// The time, in milliseconds.
    pub(crate) ms: &'a mut u64,
    /// How often it passes, one after the other.
    pub(crate) repeats: u64,
}

impl<'a> Time<'a> {
    const fn once((of, ms): (TimeOf, &'a mut u64)) -> Self {
        Self { of, ms, repeats: 1 }
    }
}

/// Returns all times of a scenario.
pub(crate) fn times(scenario: &mut Scenario) -> Vec<Time<'_>> {
    let plan = &mut scenario.plan;
    let mut all = vec![
        (TimeOf::Edge, &mut plan.lame_duck),
        (TimeOf::Edge, &mut plan.drain),
        (TimeOf::Edge, &mut plan.cancel),
        (TimeOf::Edge, &mut plan.cleanup),
        (TimeOf::Edge, &mut plan.internal_close),
    ];
    all.extend(scenario.stops.iter_mut().map(|stop| (TimeOf::Edge, &mut stop.at_ms)));
    let limits = &mut scenario.limits;
    let timeouts = [
        &mut scenario.request_timeout_ms,
        &mut limits.first_byte_timeout,
        &mut limits.send_timeout,
        &mut limits.body_timeout,
        &mut limits.keep_alive,
        &mut limits.connection_age_max,
        &mut limits.header_timeout,
        &mut limits.tls_handshake_timeout,
    ];
    all.extend(timeouts.into_iter().flatten().map(|timeout| (TimeOf::Timeout, timeout)));
    for fault in &mut scenario.faults {
        match fault {
            Fault::Hold { at_ms, .. }
            | Fault::NoDescriptors { at_ms, .. }
            | Fault::Stall { at_ms, .. }
            | Fault::ResetAll { at_ms } => all.push((TimeOf::Begin, at_ms)),
            Fault::Downstream { at_ms, for_ms, .. } => {
                all.extend([(TimeOf::Begin, at_ms), (TimeOf::Work, for_ms)]);
            }
            Fault::PartialIo { .. } | Fault::AcceptAborted => {}
        }
    }
    for hook in &mut scenario.hooks {
        all.push((TimeOf::Work, &mut hook.start.after_ms));
        all.push((TimeOf::Work, &mut hook.stop.after_ms));
    }
    all.extend(scenario.tasks.iter_mut().map(|task| (TimeOf::Work, &mut task.then.after_ms)));
    if let Some(reloads) = &mut scenario.reloads {
        all.push((TimeOf::Work, &mut reloads.takes_ms));
        all.extend(reloads.at_ms.iter_mut().map(|at_ms| (TimeOf::Begin, at_ms)));
    }
    let mut all: Vec<Time<'_>> = all.into_iter().map(Time::once).collect();
    scenario.clients.iter_mut().for_each(|client| times_of_client(client, &mut all));
    all
}

fn times_of_client<'a>(client: &'a mut Client, times: &mut Vec<Time<'a>>) {
    let repeats = client.traffic.requests().max(1);
    let Client { at_ms, request_kind, traffic, then, header, noise_ms, .. } = client;
    times.push(Time::once((TimeOf::Begin, at_ms)));
    let mut all = Vec::new();
    let pause = header.as_mut().map(|header| &mut header.pause_ms).filter(|ms| **ms > 0);
    all.extend(pause.map(|ms| (TimeOf::Pause, ms)));
    all.extend(noise_ms.as_mut().map(|ms| (TimeOf::Pause, ms)));
    for request_kind in iter::once(request_kind).chain(then) {
        times_of_kind(request_kind, &mut all);
    }
    match traffic {
        Traffic::Stalls { for_ms, idle_ms, .. } => {
            all.push((TimeOf::Pause, for_ms));
            all.extend(idle_ms.as_mut().map(|ms| (TimeOf::Pause, ms)));
        }
        Traffic::Http2Stalls { for_ms, idle_ms, beside_ms } => {
            all.push((TimeOf::Pause, for_ms));
            all.extend(idle_ms.iter_mut().chain(beside_ms).map(|ms| (TimeOf::Pause, ms)));
        }
        Traffic::Leaves { after_ms, next_ms, .. } => {
            all.push((TimeOf::Pause, after_ms));
            all.extend(next_ms.as_mut().map(|ms| (TimeOf::Pause, ms)));
        }
        Traffic::Pipelined { every_ms, .. } => {
            // At once stays at once.
            all.extend(Some(every_ms).filter(|ms| **ms > 0).map(|ms| (TimeOf::Pause, ms)));
        }
        Traffic::Late { after_ms, every_ms, .. } => {
            all.extend([(TimeOf::Pause, after_ms), (TimeOf::Pause, every_ms)]);
        }
        Traffic::InPieces(how) => {
            all.push((TimeOf::Pause, &mut how.every_ms));
            all.extend(how.idle_ms.as_mut().map(|ms| (TimeOf::Pause, ms)));
        }
        Traffic::SendsOn(how) => {
            all.extend([(TimeOf::Pause, &mut how.after_ms), (TimeOf::Pause, &mut how.every_ms)]);
        }
        Traffic::Http2HalfFrame { after_ms, every_ms, .. } => {
            all.push((TimeOf::Pause, after_ms));
            // At once stays at once.
            all.extend(Some(every_ms).filter(|ms| **ms > 0).map(|ms| (TimeOf::Pause, ms)));
        }
        Traffic::KeepAlive { every_ms: ms, .. }
        | Traffic::PerRequest { every_ms: ms, .. }
        | Traffic::Http2 { every_ms: ms, .. }
        | Traffic::Http2GoesOn { every_ms: ms, .. }
        | Traffic::Http2Leaves { after_ms: ms, .. }
        | Traffic::Http2Upload { every_ms: ms, .. }
        | Traffic::Http2Slowly { every_ms: ms, .. }
        | Traffic::Upgraded { every_ms: ms, .. }
        | Traffic::SlowHttp2 { every_ms: ms, .. }
        | Traffic::SlowHello { every_ms: ms, .. }
        | Traffic::Abandons { after_ms: ms }
        | Traffic::Session { every_ms: ms, .. }
        | Traffic::Once(
            Pacing::HeadPause(ms) | Pacing::SlowUpload(_, ms) | Pacing::SlowReader(_, ms),
        ) => all.push((TimeOf::Pause, ms)),
        Traffic::Once(Pacing::Prompt | Pacing::HalfClosed)
        | Traffic::Http2Windowless { .. }
        | Traffic::Http2Resets { .. }
        | Traffic::ByteLess
        | Traffic::HalfHead
        | Traffic::InternalHalfHead
        | Traffic::InternalStrangers { .. }
        | Traffic::BadHeader(_)
        | Traffic::SilentHttp2 => {}
    }
    times.extend(all.into_iter().map(|(of, ms)| Time { of, ms, repeats }));
}

fn times_of_kind<'a>(request_kind: &'a mut RequestKind, all: &mut Vec<(TimeOf, &'a mut u64)>) {
    match request_kind {
        RequestKind::Slow(ms)
        | RequestKind::Stuck(ms, _)
        | RequestKind::Work(ms, _)
        | RequestKind::Unlimited(ms) => all.push((TimeOf::Work, ms)),
        RequestKind::Within(ms, within) => {
            all.extend([(TimeOf::Work, ms), (TimeOf::Timeout, within)]);
        }
        RequestKind::Rare(RareRequest::LateTimeout { after, within }) => {
            all.push((TimeOf::Work, after));
            all.extend(within.as_mut().map(|ms| (TimeOf::Timeout, ms)));
        }
        RequestKind::Rare(RareRequest::WatchedLate { after, ms }) => {
            all.extend([(TimeOf::Work, after), (TimeOf::Work, ms)]);
        }
        RequestKind::Rare(RareRequest::RouteTimeout(within)) => {
            all.extend(within.as_mut().map(|ms| (TimeOf::Timeout, ms)));
        }
        RequestKind::Rare(RareRequest::Call(call)) => {
            all.push((TimeOf::Work, &mut call.ms));
            all.extend(call.timeout_ms.as_mut().map(|ms| (TimeOf::Timeout, ms)));
        }
        RequestKind::Rare(
            RareRequest::DropPanics(ms)
            | RareRequest::StreamWork(ms)
            | RareRequest::Late { ms, .. }
            | RareRequest::Empty { ms, .. }
            | RareRequest::Closes { ms, .. }
            | RareRequest::Watched(ms),
        ) => all.push((TimeOf::Work, ms)),
        RequestKind::Rare(
            RareRequest::EndAtCancel
            | RareRequest::ShortStream(_)
            | RareRequest::LongStream
            | RareRequest::Padded(..)
            | RareRequest::Fails
            | RareRequest::FailsAfter(_)
            | RareRequest::HasNoLength
            | RareRequest::NotTaken,
        ) => {}
        RequestKind::HeadOf(kind) => times_of_kind(kind, all),
        // Its length would change, too.
        RequestKind::Stream(_)
        | RequestKind::Fast
        | RequestKind::Echo(_)
        | RequestKind::Unread(_)
        | RequestKind::Bytes(_)
        | RequestKind::Panic
        | RequestKind::Breaks
        | RequestKind::Head
        | RequestKind::Events
        | RequestKind::User(_)
        | RequestKind::Odd(_)
        | RequestKind::Mismatch(_) => {}
    }
}
