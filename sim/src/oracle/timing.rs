//! Checks that are exact to the millisecond: when handlers, tasks and silent clients are notified,
//! and how much time each of them has (P6, P9, P10, P12).

use super::{ErrorKind, RequestResult, RunHistory, may_end_at_any_time};
use crate::{
    scenario::{
        Client, Filter, HeaderFault, Pacing, RequestKind, StuckResponse, Traffic, client_name,
    },
    tasks::Until,
    trace::Record,
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use std::time::Duration;

/// First-byte grace of a new connection in the drain; time limit of a partial head in the drain;
/// time limit of a partial head in any phase.
const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);
const HEAD_GRACE: Duration = Duration::from_secs(1);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an upload may make no progress in the drain.
const PROGRESS_WAIT: Duration = Duration::from_secs(5);
/// Time limit of a partial head on the internal port.
const INTERNAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between sweeps over the connections while serving, and after the stop request.
const SWEEP: Duration = Duration::from_millis(250);
const SWEEP_STOPPING: Duration = Duration::from_millis(10);
/// Longest time that a listener is kept open for others to be sealed.
const SEAL_BARRIER_MAX: Duration = Duration::from_millis(200);
/// Longest time in which the host does not notice that a client has left.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Checks the context that a handler gets: it shows the current phase and the whole deadline.
pub(super) fn contexts_are_true(history: &RunHistory<'_>) -> Result<(), String> {
    let own = history.scenario.request_timeout_ms.map(|ms| ms * 1_000);
    // A skewed clock yields fractions of a microsecond.
    let slack = 1 + u64::try_from(history.tolerance().as_micros()).unwrap_or(u64::MAX);
    for (place, record) in
        history.records.iter().enumerate().filter(|(_, record)| record.event == "handler begins")
    {
        let Some(phase) = record.text("phase") else { continue };
        let entered = history
            .phases
            .iter()
            .rfind(|(_, entered, _)| *entered < place)
            .map(|(phase, _, _)| *phase);
        let near = |(_, _, at): &(Phase, usize, Duration)| {
            !history.tolerance().is_zero() && at.abs_diff(record.at) <= history.tolerance()
        };
        let changes = history.phases.iter().any(near);
        if !changes && entered.is_some_and(|entered| entered.name() != phase) {
            return Err(format!(
                "a handler at {:?} got the phase {phase}, but it was {entered:?}",
                record.at
            ));
        }
        let left = record.number("left_us");
        // The timeout of a gRPC call, if that is shorter.
        let call = record.text("target").and_then(|target| target.split_once("&grpc="));
        let call = call.and_then(|(_, ms)| ms.parse::<u64>().ok()).map(|ms| ms * 1_000);
        let own = own.into_iter().chain(call).min();
        if left.zip(own).map_or(left != own, |(left, own)| left.abs_diff(own) > slack) {
            return Err(format!(
                "a handler at {:?} had {left:?} µs left instead of {own:?}",
                record.at
            ));
        }
    }
    Ok(())
}

/// Checks that a deadline cancels the context, for all holders of it.
pub(super) fn cancelled_at_the_deadline(history: &RunHistory<'_>) -> Result<(), String> {
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    for record in history.server("handler begins") {
        let target = record.text("target").unwrap_or_default();
        let within = target.split_once("within=").and_then(|(_, within)| within.parse().ok());
        let Some(due) = within.map(|ms| record.at + history.world(Duration::from_millis(ms)))
        else {
            continue;
        };
        let of_it = |event: &'static str| {
            history
                .server(event)
                .find(|told| told.number("handler") == record.number("handler"))
                .map(|told| told.at)
        };
        // The handler ended at its deadline, and therefore because of it.
        let met = of_it("handler ends").is_some_and(|ends| ends >= due)
            && of_it("handler cancelled").is_none();
        let late = of_it("context cancelled")
            .is_none_or(|at| at > due + Duration::from_millis(10) + history.rounding());
        let worked =
            target.split_once("ms=").and_then(|(_, ms)| ms.split('&').next()?.parse().ok());
        let is_longer = worked
            .is_some_and(|ms| record.at + Duration::from_millis(ms) > due + history.rounding());
        if met && late && is_longer && due + history.rounding() < exit {
            return Err(format!(
                "{target} reached its deadline at {due:?}, but its context was not cancelled then"
            ));
        }
    }
    Ok(())
}

/// Checks that a handler that ignores everything ends at the timeout that it set itself, or that
/// its route has.
pub(super) fn own_timeouts_are_kept(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.delivers() {
        return Ok(());
    }
    let until = history.began(Phase::Cancelling).or(history.exit().map(|(at, _)| at));
    let until = until.unwrap_or(Duration::MAX);
    let ms = Duration::from_millis;
    for begins in history.server("handler begins") {
        let target = begins.text("target").unwrap_or_default();
        let Some((_, query)) = target.split_once("/ignores?") else { continue };
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let host = history.scenario.request_timeout_ms.map(|host| history.world(ms(host)));
        let due = match (number("route"), number("after"), number("timeout")) {
            (Some(route), ..) => Some(history.world(ms(route))),
            (None, Some(after), timeout) => {
                // A timer of the host's clock and one of the world's may meet.
                if host.is_some_and(|host| host.abs_diff(ms(after)) <= ms(2)) {
                    continue;
                }
                host.filter(|host| *host < ms(after))
                    .or(timeout.map(|timeout| history.world(ms(timeout)).max(ms(after))))
            }
            (None, None, _) => host,
        };
        let Some(due) = due.map(|due| begins.at + due) else { continue };
        let done = begins.at + ms(number("ms").unwrap_or(60_000) + number("after").unwrap_or(0));
        let ends = history
            .server("handler ends")
            .find(|record| record.number("handler") == begins.number("handler"))
            .map(|record| record.at);
        let slack = history.rounding() + ms(1) + history.tolerance();
        let early = ends.is_some_and(|ends| ends + slack < due.min(done).min(until));
        let late = ends.is_none_or(|ends| ends > due.min(done) + slack);
        if early || late && due.min(done) + slack < until {
            return Err(format!(
                "{target} began at {:?} and had time until {due:?}, but ended at {ends:?}",
                begins.at
            ));
        }
    }
    Ok(())
}

/// Checks that a handler which watches its context is notified when the drain ends. One that does
/// not is dropped when its time expires.
pub(super) fn cancelled_on_time(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(cancelling) = history.began(Phase::Cancelling) else { return Ok(()) };
    let Some(cleaning_up) = history.began(Phase::CleaningUp) else { return Ok(()) };
    let flush = ABORT_FLUSH.min(history.scenario.plan().cancel);
    let impatient = history.impatient().map(|(_, signal)| signal.at).find(|at| *at > cancelling);
    let abort = cancelling + history.world(history.scenario.plan().cancel - flush);
    let abort = impatient.map_or(abort, |at| abort.min(at)) + history.rounding();
    for record in history.server("handler begins") {
        let target = record.text("target").unwrap_or_default();
        let handler = record.number("handler");
        let of_it = |event: &'static str| {
            history
                .server(event)
                .find(|record| record.number("handler") == handler)
                .map(|record| record.at)
        };
        let ends = of_it("handler ends").unwrap_or(Duration::MAX);
        let heeds = target.starts_with("/slow?");
        let waits = heeds || (target.starts_with("/stuck?") && !target.contains('&'));
        if !waits || record.at >= cancelling {
            continue;
        }
        if heeds && ends > cancelling + history.rounding() && cleaning_up > cancelling {
            // It sends a response. On HTTP/1 the `HandlerGuard` lives in the response until that is
            // written.
            let told = of_it("handler cancelled");
            if told.is_none_or(|told| told > cancelling + history.rounding()) {
                return Err(format!(
                    "the context of {target}, running since {:?}, was not cancelled at {cancelling:?}",
                    record.at
                ));
            }
        }
        if !heeds && ends > abort && cleaning_up > abort {
            return Err(format!(
                "{target}, running since {:?}, had to be aborted by {abort:?}, but was at {ends:?}",
                record.at
            ));
        }
    }
    // A response that cannot be flushed is aborted at the end of the flush, and logged then.
    let cut = |record: &&Record| {
        record.text("message") == Some("request aborted")
            && record.text("phase") != Some("draining")
            && !record.text("path").is_some_and(may_end_at_any_time)
    };
    let late = |record: &&Record| record.at > abort && record.at < cleaning_up;
    for record in history.server("log").filter(cut).filter(late) {
        let fresh = history.server("handler begins").any(|begins| begins.at >= abort);
        if record.text("head_sent") == Some("false") && !fresh && history.delivers() {
            return Err(format!(
                "a request was aborted at {:?}, but had to be at {abort:?}",
                record.at
            ));
        }
    }
    for record in history.server("task ends").filter(|record| record.text("how") == Some("dropped"))
    {
        if record.at > abort && record.at > cancelling {
            let begun = history
                .server("task begins")
                .filter(|begun| begun.text("task") == record.text("task"));
            if begun.map(|begun| begun.at).max().is_some_and(|begun| begun < abort) {
                return Err(format!(
                    "a task was dropped at {:?}, but had to be at {abort:?}",
                    record.at
                ));
            }
        }
    }
    Ok(())
}

/// Checks that background tasks begin with Serving, and that each is notified of the step that it
/// waits for.
pub(super) fn tasks_are_notified(history: &RunHistory<'_>) -> Result<(), String> {
    let serving = history.began(Phase::Serving);
    for task in &history.scenario.tasks {
        let of_it = |event: &'static str| {
            let mine = |record: &&Record| record.text("task") == Some(task.name.as_str());
            history.server(event).find(mine).map(|record| record.at)
        };
        let (begins, ends) = (of_it("task begins"), of_it("task ends"));
        let begins_late = begins.zip(serving).is_none_or(|(begins, serving)| {
            begins < serving || begins - serving > history.tolerance()
        });
        if begins_late && (begins.is_some() || ends.is_some()) {
            return Err(format!("{} began at {begins:?}, but Serving at {serving:?}", task.name));
        }
        let due = match task.until {
            Until::Begun => None,
            Until::Stopping => history.left_serving(),
            Until::Draining => history.began(Phase::Draining),
            Until::Cancelled => history.began(Phase::Cancelling),
        };
        if let (Some(due), Some(_), Some(ends)) = (due, begins, ends)
            && ends > due + history.tolerance()
            && of_it("task notified").is_none()
        {
            return Err(format!(
                "{} was not notified of {} at {due:?}",
                task.name,
                task.until.name()
            ));
        }
    }
    Ok(())
}

/// Checks that a silent connection is not closed before its grace ends, and that a partial head is
/// not refused before its time limit.
pub(super) fn silent_connections_have_their_grace(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.resets() {
        return Ok(());
    }
    let Some(draining) = history.began(Phase::Draining) else { return Ok(()) };
    // A drain that goes on for long streams cuts the others before its end.
    let cut = history
        .requests_cancelled()
        .or(history.began(Phase::CleaningUp))
        .or(history.exit().map(|(at, _)| at))
        .unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    if !history.delivers() {
        return Ok(());
    }
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let when = |event: &str| {
            let is_its =
                |record: &&Record| record.event == event && *record.actor == *client_name(n);
            history.records.iter().find(is_its).map(|record| record.at)
        };
        let (Some(connected), Some(ended)) = (when("connected"), when("ended")) else { continue };
        // The client counts as connected while its ACK is still under way.
        let accepted = connected + near;
        let least = match client.traffic {
            Traffic::ByteLess => {
                let least = draining.max(accepted + history.world(FIRST_BYTE_GRACE));
                let least = first_byte_timeout(history)
                    .map_or(least, |timeout| least.min(accepted + timeout));
                // At the connection limit it makes room after its grace.
                if history.may_wait_for_room() {
                    least.min(accepted + history.world(FIRST_BYTE_GRACE))
                } else {
                    least
                }
            }
            Traffic::HalfHead | Traffic::BadHeader(HeaderFault::Half) => (accepted
                + history.world(HEADER_TIMEOUT))
            .min(draining.max(accepted) + history.world(HEAD_GRACE)),
            Traffic::Once(_)
            | Traffic::KeepAlive { .. }
            | Traffic::PerRequest { .. }
            | Traffic::Http2 { .. }
            | Traffic::Pipelined { .. }
            | Traffic::Session { .. }
            | Traffic::Late { .. }
            | Traffic::Leaves { .. }
            | Traffic::Http2Windowless { .. }
            | Traffic::Http2Resets { .. }
            | Traffic::Http2Upload { .. }
            | Traffic::Stalls { .. }
            | Traffic::InternalHalfHead
            | Traffic::InternalStrangers { .. }
            | Traffic::SilentHttp2
            | Traffic::BadHeader(_)
            | Traffic::Upgraded { .. }
            | Traffic::Http2Leaves { .. } => continue,
        };
        if connected + history.under_way() < draining
            && ended < cut
            && ended + history.rounding() + history.outcome.grain < least + near
        {
            return Err(format!(
                "{} had time until {least:?}, but was refused by {ended:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Checks that a connection without a byte is closed after its timeout plus one sweep.
pub(super) fn silent_connections_are_closed(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(timeout), true) =
        (first_byte_timeout(history), history.resets() && history.delivers())
    else {
        return Ok(());
    };
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let when = |event: &str| {
            let is_its =
                |record: &&Record| record.event == event && *record.actor == *client_name(n);
            history.records.iter().find(is_its).map(|record| record.at)
        };
        let (Traffic::ByteLess, Some(connected)) = (client.traffic, when("connected")) else {
            continue;
        };
        let latest = connected
            + timeout
            + history.world(SWEEP)
            + history.under_way() * 2
            + history.rounding();
        if latest < draining && when("ended").is_none_or(|ended| ended > latest) {
            return Err(format!(
                "{} sent nothing, but was not closed by {latest:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

fn first_byte_timeout(history: &RunHistory<'_>) -> Option<Duration> {
    history.scenario.limits.first_byte_timeout.map(|ms| history.world(Duration::from_millis(ms)))
}

/// Checks that an upload without progress in the drain is given up at its time limit, and not
/// before.
pub(super) fn uploads_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(draining), true) = (history.began(Phase::Draining), history.delivers()) else {
        return Ok(());
    };
    let (near, far) = (Duration::from_millis(history.scenario.latency_ms.0), history.under_way());
    for observed in history.requests.iter().filter(|observed| observed.said == ErrorKind::Stalled) {
        let (Some(client), Some((head, ..))) = (history.client(observed), observed.head) else {
            continue;
        };
        let Some(pause) = client.traffic.upload_pause() else { continue };
        let pause = Duration::from_millis(pause.max(1));
        // The client sends a piece after each pause.
        let piece_before = |at: Duration| {
            let count = at.saturating_sub(observed.observed).as_micros() / pause.as_micros();
            observed.observed + pause * u32::try_from(count).unwrap_or(0)
        };
        let still = head.saturating_sub(near)
            - draining.max(piece_before(head.saturating_sub(near + far)) + near).min(head - near);
        let most = history.world(PROGRESS_WAIT + CLIENT_CHECK_INTERVAL)
            + SWEEP_STOPPING * 2
            + (far - near) * 2
            + history.rounding();
        if pause + (far - near) + history.rounding() < history.world(PROGRESS_WAIT) {
            return Err(format!("an upload with progress every {pause:?} was aborted at {head:?}"));
        }
        if still > most {
            return Err(format!(
                "an upload stalled for {still:?} in the drain; the limit is {most:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that a client which stops reading in the drain is given up at its time limit, and not
/// before.
pub(super) fn readers_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.resets() {
        return Ok(());
    }
    let (Some(draining), Some(cancelling), true) =
        (history.began(Phase::Draining), history.began(Phase::Cancelling), history.delivers())
    else {
        return Ok(());
    };
    // A shorter timeout applies in the drain, too.
    if history.scenario.limits.send_timeout.is_some() {
        return Ok(());
    }
    let stalls = |client: &Client| matches!(client.traffic, Traffic::Once(Pacing::SlowReader(_, pause)) if pause > 7_000);
    let ordinary_until = history.requests_cancelled().unwrap_or(Duration::MAX);
    let aborted = |record: &&Record| {
        record.text("message") == Some("request aborted")
            && record.text("phase") == Some("draining")
            && record.at < ordinary_until
            && !record.text("path").is_some_and(may_end_at_any_time)
    };
    for record in history.server("log").filter(aborted) {
        if record.at + history.early() < draining + history.world(PROGRESS_WAIT) {
            return Err(format!(
                "a client was cut at {:?}, but the drain began at {draining:?}",
                record.at
            ));
        }
    }
    for observed in &history.requests {
        let (Some(client), Some(RequestKind::Bytes(300_000..))) =
            (history.client(observed), history.request_kind(observed))
        else {
            continue;
        };
        let Traffic::Once(Pacing::SlowReader(_, pause)) = client.traffic else { continue };
        // The client reads after each pause, which is its progress.
        let mut reads = (1..20).map(|n| observed.observed + Duration::from_millis(pause) * n);
        let moved = reads
            .rfind(|at| *at <= draining + history.under_way() * 2)
            .unwrap_or(observed.observed);
        let next = moved + Duration::from_millis(pause);
        let by = draining
            + history.world(PROGRESS_WAIT + CLIENT_CHECK_INTERVAL * 2)
            + SWEEP_STOPPING * 4
            + history.under_way() * 6;
        let was_there = observed.observed + history.under_way() * 4 < draining;
        let given_up = history.server("log").filter(aborted).any(|record| record.at <= by);
        if stalls(client) && was_there && by < next && by < cancelling && !given_up {
            return Err(format!(
                "client-{} read nothing from {moved:?} on, but was not cut by {by:?}",
                observed.client
            ));
        }
    }
    Ok(())
}

/// Checks that, while serving, a partial head is refused at its time limit.
pub(super) fn half_heads_are_refused(history: &RunHistory<'_>) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    for (n, _) in history.scenario.clients.iter().enumerate().filter(|(_, client)| {
        matches!(client.traffic, Traffic::HalfHead | Traffic::BadHeader(HeaderFault::Half))
    }) {
        let when = |event: &str| {
            let is_its =
                |record: &&Record| record.event == event && *record.actor == *client_name(n);
            history.records.iter().find(is_its).map(|record| record.at)
        };
        let Some(connected) = when("connected") else { continue };
        let by = connected
            + history.world(HEADER_TIMEOUT + SWEEP)
            + SWEEP_STOPPING
            + history.under_way() * 3
            + history.rounding();
        if history.delivers() && by < left && when("ended").is_none_or(|ended| ended > by) {
            return Err(format!(
                "{} sent a partial head at {connected:?}, but was not refused by {by:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Checks that the internal server waits for a partial head up to its time limit. A further SIGTERM
/// does not shorten that.
pub(super) fn internal_heads_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(cleaning_up), Some(stopped)) =
        (history.began(Phase::CleaningUp), history.began(Phase::Stopped))
    else {
        return Ok(());
    };
    let impatient =
        history.impatient().any(|(_, signal)| signal.at >= cleaning_up && signal.at <= stopped);
    let is_stop = |record: &&Record| {
        let said = record.text("end").is_some_and(|end| end.starts_with("stop"));
        said || (record.text("stage") == Some("stop") && record.event != "hook report")
    };
    let last = history.records.iter().filter(is_stop).map(|record| record.at).max();
    let closes = last.map_or(cleaning_up, |last| last.max(cleaning_up));
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let when = |event: &str| {
            let is_its =
                |record: &&Record| record.event == event && *record.actor == *client_name(n);
            history.records.iter().find(is_its)
        };
        let (Traffic::InternalHalfHead, Some(connected), Some(ended)) =
            (client.traffic, when("connected"), when("ended"))
        else {
            continue;
        };
        let came = connected.at + Duration::from_millis(history.scenario.latency_ms.0);
        let own =
            (came + history.world(INTERNAL_HEADER_TIMEOUT)).min(closes + history.world(HEAD_GRACE));
        let until = own.min(closes + history.world(history.scenario.plan().internal_close));
        // The overall bound takes any delay of the earlier phases from the last wait.
        let is_there = connected.at + history.under_way() < closes && ended.at >= stopped;
        if is_there
            && history.delivers()
            && !impatient
            && stopped + Duration::from_millis(1) + history.rounding() * 3 < until
        {
            return Err(format!(
                "the internal server had time until {until:?} to read from {}, but closed at {stopped:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Checks that once the listeners are sealed no connection is accepted whose SYN arrives later.
pub(super) fn nothing_is_accepted_after_the_seal(history: &RunHistory<'_>) -> Result<(), String> {
    let (near, far) = history.scenario.latency_ms;
    let sealed = history.scenario.syn_filter == Filter::Available
        && near == far
        && history.resets()
        && history.delivers();
    let (Some(draining), true) = (history.began(Phase::Draining), sealed) else { return Ok(()) };
    for record in &history.records {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        let Some(client) = client.and_then(|n| history.scenario.clients.get(n)) else { continue };
        // With a header or TLS a client is connected only after these.
        let bare = matches!(client.traffic, Traffic::BadHeader(_));
        let event = match (client.header, history.scenario.tls && !bare) {
            (Some(_), _) => "header begins",
            (None, true) => "tcp connected",
            (None, false) => "connected",
        };
        if record.event != event {
            continue;
        }
        let came = record.at.saturating_sub(Duration::from_millis(near));
        if !client.traffic.is_internal() && came > draining + history.tolerance() {
            return Err(format!(
                "{} connected at {came:?}, after the drain began at {draining:?}, and was accepted",
                record.actor
            ));
        }
    }
    Ok(())
}

/// Checks that no listener is closed while another one still takes new connections, unless it has
/// waited for that one long enough (P5a).
pub(super) fn all_are_sealed_before_one_is_closed(history: &RunHistory<'_>) -> Result<(), String> {
    let drain_ends = history
        .phases
        .iter()
        .find(|(phase, ..)| *phase > Phase::Draining)
        .map_or(Duration::MAX, |(_, _, at)| *at);
    let key =
        |record: &Record| (record.number("worker"), record.text("address").map(ToOwned::to_owned));
    let sealed: Vec<_> = history.server("listener sealed").map(|at| (key(at), at.at)).collect();
    let last = sealed.iter().map(|(_, at)| *at).max();
    for closed in history.server("listener closed").filter(|closed| closed.at < drain_ends) {
        let own = sealed.iter().find(|(of, _)| *of == key(closed));
        let (Some((_, own)), Some(last)) = (own, last) else { continue };
        let until = last.min(*own + history.world(SEAL_BARRIER_MAX));
        if closed.at + history.early() < until {
            return Err(format!(
                "a listener of worker {:?} was closed at {:?}, and others were sealed at {last:?}",
                closed.number("worker"),
                closed.at
            ));
        }
    }
    Ok(())
}

/// Checks that a head which arrives in two parts is served if it is complete in time, and only
/// then.
pub(super) fn heads_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let cut = history
        .began(Phase::Cancelling)
        .or(history.exit().map(|(at, _)| at))
        .unwrap_or(Duration::MAX);
    if !history.delivers() {
        return Ok(());
    }
    let (near, far) = (Duration::from_millis(history.scenario.latency_ms.0), history.under_way());
    for observed in &history.requests {
        let (Some(client), Some((_, end))) = (history.client(observed), &observed.end) else {
            continue;
        };
        let Traffic::Once(Pacing::HeadPause(pause)) = client.traffic else { continue };
        let pause = Duration::from_millis(pause);
        let limit = |first: Duration| {
            let usual = first + history.world(HEADER_TIMEOUT);
            let drained = draining.max(first).saturating_add(history.world(HEAD_GRACE));
            usual.min(drained)
        };
        // The connection's first packet arrives before the request's.
        let (first, last) = (observed.observed + near, observed.observed + far + pause);
        let heard = observed.head.is_some_and(|(_, status, _)| status != 408);
        // Otherwise the client connects while the listeners close, or not at all.
        let late = history.tolerance();
        let was_there = observed.observed + far + late < draining;
        if !heard && was_there && last + SWEEP_STOPPING + late < limit(first).min(cut) {
            return Err(format!(
                "a head that was complete by {last:?} had time until {:?}, but got {end:?}",
                limit(first)
            ));
        }
        let latest = limit(observed.observed + far)
            + history.world(SWEEP)
            + SWEEP_STOPPING
            + history.rounding();
        let whole = observed.observed + near + pause;
        if heard && whole > latest {
            return Err(format!(
                "a partial head had time until {latest:?}, but was read until {whole:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that a request sent within the first-byte grace is served.
pub(super) fn late_first_bytes_are_served(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(draining), true) = (history.began(Phase::Draining), history.delivers()) else {
        return Ok(());
    };
    let cut = history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
    for observed in &history.requests {
        let (Some(client), Some((at, RequestResult::Failed(how)))) =
            (history.client(observed), &observed.end)
        else {
            continue;
        };
        let connected = history.records.iter().find(|record| {
            record.event == "connected"
                && *record.actor == *client_name(observed.client)
                && record.number("connection") == Some(observed.connection)
        });
        let (Traffic::Late { .. }, Some(connected)) = (client.traffic, connected) else { continue };
        let arrives = observed.observed + history.under_way();
        let accepted = connected.at + Duration::from_millis(history.scenario.latency_ms.0);
        let until = draining.max(accepted + history.world(FIRST_BYTE_GRACE));
        let lost = observed.head.is_none()
            && matches!(how.as_str(), "reset-before-head" | "end-before-head");
        if lost
            && connected.at + history.under_way() < draining
            && arrives + history.tolerance() < until.min(cut)
            && *at < cut
        {
            return Err(format!(
                "client-{} sent a byte at {:?} and had time until {until:?}, but got no response",
                observed.client, observed.observed
            ));
        }
    }
    Ok(())
}

/// Checks that a handler ends soon after its client has reset the connection.
pub(super) fn departed_clients_are_noticed(history: &RunHistory<'_>) -> Result<(), String> {
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let (Traffic::Leaves { resets: true, .. }, true) = (client.traffic, history.resets())
        else {
            continue;
        };
        let target = client.request_kind.ask().target;
        let alone =
            history.requests.iter().filter(|observed| observed.target == target).count() == 1;
        let waits = matches!(
            client.request_kind,
            RequestKind::Slow(_)
                | RequestKind::Unlimited(_)
                | RequestKind::Stuck(_, StuckResponse::Nothing)
        );
        let left = history
            .records
            .iter()
            .find(|record| record.event == "leaves" && *record.actor == *client_name(n));
        let (Some(left), true, true) = (left, alone && waits, history.delivers()) else { continue };
        let Some(begins) = history
            .server("handler begins")
            .find(|record| record.text("target") == Some(target.as_str()))
        else {
            continue;
        };
        let by = left.at.max(begins.at)
            + history.under_way()
            + history.world(CLIENT_CHECK_INTERVAL * 2 + SWEEP)
            + SWEEP_STOPPING
            + history.tolerance();
        let ends = history
            .server("handler ends")
            .find(|record| record.number("handler") == begins.number("handler"));
        if ends.is_some_and(|ends| ends.at > by) {
            return Err(format!(
                "client-{n} left at {:?}, but its handler was running after {by:?}",
                left.at
            ));
        }
    }
    Ok(())
}

/// Checks that a handler whose deadline coincides with the abort gets the timeout response.
pub(super) fn the_deadline_goes_first(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(cancelling) = history.began(Phase::Cancelling) else { return Ok(()) };
    for observed in history.requests.iter().filter(|observed| observed.said == ErrorKind::Aborted) {
        let Some(RequestKind::Stuck(_, StuckResponse::Nothing)) = history.request_kind(observed)
        else {
            continue;
        };
        let Some(timeout) = history.scenario.request_timeout_ms.map(Duration::from_millis) else {
            continue;
        };
        let begins = history
            .server("handler begins")
            .filter(|record| record.text("target") == Some(observed.target.as_str()));
        let [begins] = begins.collect::<Vec<_>>()[..] else { continue };
        let due = begins.at + history.world(timeout);
        let ends = history
            .server("handler ends")
            .find(|record| record.number("handler") == begins.number("handler"));
        if ends.is_some_and(|ends| ends.at >= due + history.rounding() && ends.at > cancelling) {
            return Err(format!(
                "{} reached its deadline at {due:?}, but its response says that it was aborted",
                observed.target
            ));
        }
    }
    Ok(())
}

/// Checks that nothing of a request is left in the process when it cleans up early.
pub(super) fn no_work_is_left(history: &RunHistory<'_>) -> Result<(), String> {
    let Some((_, place, at)) =
        history.phases.iter().find(|(phase, _, _)| *phase == Phase::CleaningUp)
    else {
        return Ok(());
    };
    let time_was_up = history.is_impatient()
        || history
            .span(Phase::Cancelling)
            .is_none_or(|span| span + history.rounding() >= history.scenario.plan().cancel);
    if time_was_up {
        return Ok(());
    }
    for what in [
        ["handler begins", "handler ends"],
        ["task begins", "task ends"],
        ["conversation begins", "conversation ends"],
    ] {
        let [begun, ended] = what.map(|event| {
            let said =
                history.records.iter().enumerate().filter(|(_, record)| record.event == event);
            // An end in the same instant may be recorded slightly later.
            said.filter(|(n, record)| {
                n < place || (event.ends_with("ends") && record.at <= *at + history.tolerance())
            })
            .count()
        });
        if begun > ended {
            return Err(format!(
                "cleaning up began at {at:?}, but {} of {begun} had not ended: {}",
                begun - ended,
                what[0]
            ));
        }
    }
    Ok(())
}
