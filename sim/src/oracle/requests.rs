//! Judges of the requests: P5, P9, P10.

use super::{Asked, End, Exercise, Judgement, Story};
use crate::{
    app::{SLOW_DONE, STUCK_HALVES},
    scenario::{Client, Deed, Filter, Half, Pacing, Traffic},
};
use lameduck::lifecycle::Phase;
use std::{collections::BTreeMap, time::Duration};

/// How long handshakes under way have at most, once newcomers are kept out.
const SETTLE_MAX: Duration = Duration::from_millis(250);

/// How long an upload may stand still in the drain, by the host's clock.
const PROGRESS_WAIT_US: u64 = 5_000_000;

/// How long after its deadline a request may go on, by the host's clock, with the rounding of timers.
const LATE: Duration = Duration::from_millis(10 + 2);
/// A request arrives a poll before its handler begins, and clocks round.
const EARLY: Duration = Duration::from_millis(1);

/// P5: every request has one fate, and what was cut does not look whole.
pub(super) fn one_fate_per_request(story: &Story<'_>) -> Judgement {
    if let Some(report) = &story.outcome.report {
        let tally = &report.requests;
        let ended = tally.finished + tally.timed_out + tally.aborted + tally.gone;
        if tally.started != ended {
            return Err(format!("{} requests started and {ended} ended", tally.started));
        }
        counts_agree(story, tally)?;
    }
    for asked in &story.requests {
        looks_whole_only_if_it_is(story, asked)?;
        is_not_lost(story, asked)?;
    }
    Ok(Exercise::of(story.requests.len()))
}

/// What the host counts is what clients saw.
fn counts_agree(story: &Story<'_>, tally: &lameduck::RequestTally) -> Result<(), String> {
    let ends = || story.requests.iter().filter_map(|asked| asked.end.as_ref());
    // What never became a request is answered, and not counted.
    let answered = ends().filter(|(_, end)| matches!(end, End::Completed(status, _) if ![400, 408, 431].contains(status)));
    let answered = answered.count() as u64;
    let unended = story.requests.iter().any(|asked| asked.end.is_none());
    let gave_up = ends().any(|(_, end)| matches!(end, End::Failed(how) if how == "timed-out"));
    if answered > tally.finished + tally.timed_out + tally.aborted {
        return Err(format!("clients got {answered} answers, more than the host counts: {tally:?}"));
    }
    // A reset that cuts one request of a connection may overtake the whole answers of others.
    let overtaken = story.requests.iter().any(|asked| {
        let shares = |client: &Client| matches!(client.traffic, Traffic::Http2 { .. } | Traffic::Pipelined { .. });
        story.client(asked).is_some_and(shares)
            && matches!(&asked.end, Some((_, End::Failed(how))) if how.starts_with("reset"))
    });
    if !unended && !gave_up && !overtaken && answered < tally.finished + tally.timed_out {
        return Err(format!("clients got {answered} whole answers, fewer than the host says it gave: {tally:?}"));
    }
    Ok(())
}

fn looks_whole_only_if_it_is(story: &Story<'_>, asked: &Asked) -> Result<(), String> {
    let Some((at, End::Completed(200, bytes))) = &asked.end else { return Ok(()) };
    let whole = match story.client(asked).map(|client| &client.deed) {
        Some(Deed::Slow(_)) => SLOW_DONE.len() as u64,
        Some(Deed::Stuck(..)) => STUCK_HALVES.concat().len() as u64,
        Some(Deed::Echo(bytes)) => *bytes as u64,
        Some(Deed::Fast | Deed::Stream(_) | Deed::Panic | Deed::Get(_)) | None => return Ok(()),
    };
    if *bytes != whole {
        return Err(format!("an answer to {} at {at:?} looked whole with {bytes} of {whole} bytes", asked.target));
    }
    Ok(())
}

/// A request that arrived before the drain, or on a connection that never carried another, gets at least a head.
fn is_not_lost(story: &Story<'_>, asked: &Asked) -> Result<(), String> {
    let Some((at, End::Failed(how))) = &asked.end else { return Ok(()) };
    let Some(client) = story.client(asked) else { return Ok(()) };
    // What breaks off in the very moment in which its head was ready takes the head with it.
    let halved = matches!(client.deed, Deed::Stuck(_, Half::Length | Half::Chunked) | Deed::Stream(_));
    if halved && story.began(Phase::Cancelling).is_some_and(|cancelling| *at >= cancelling) {
        return Ok(());
    }
    // A stream that was refused or never sent may be tried again (RFC 9113 §8.7).
    let lost = matches!(how.as_str(), "reset-before-head" | "end-before-head" | "stream-reset");
    let prompt = match client.traffic {
        Traffic::Once(Pacing::Prompt | Pacing::HalfClosed | Pacing::SlowReader(..))
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. } => true,
        Traffic::Once(Pacing::HeadPause(_) | Pacing::SlowUpload(..))
        | Traffic::Pipelined { .. }
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::ByteLess
        | Traffic::HalfHead => false,
    };
    if !lost || asked.head.is_some() || !prompt || !story.delivers() || !story.flushes() {
        return Ok(());
    }
    let draining = story.began(Phase::Draining).unwrap_or(Duration::MAX);
    let arrived_before = asked.asked + story.under_way() < draining;
    // The first-byte grace is 250 ms: a connection that asks at once is never closed unheard. One whose handshake was under way
    // when newcomers were shut out is complete for its client first: it is waited for, unless the client is farther away than
    // anybody waits for, the drain is shorter than that, or somebody who is impatient may have ended the wait.
    let settles = story.scenario.syn_filter == Filter::Available
        && !story.is_impatient()
        && story.under_way() * 2 < story.world(SETTLE_MAX.min(story.scenario.plan().drain));
    let fresh = asked.earlier == 0 && settles;
    if arrived_before || fresh {
        return Err(format!(
            "client-{} asked for {} at {:?} and lost it at {at:?}: {how}",
            asked.client, asked.target, asked.asked
        ));
    }
    Ok(())
}

/// P9: never before the deadline, and not long after.
pub(super) fn a_deadline_per_request(story: &Story<'_>) -> Judgement {
    let timeout = story.scenario.request_timeout_ms.map(|ms| story.world(Duration::from_millis(ms)));
    let cancelling = story.began(Phase::Cancelling).unwrap_or(Duration::MAX);
    let mut judged = 0;
    for asked in &story.requests {
        let Some(client) = story.client(asked) else { continue };
        let work = match &client.deed {
            Deed::Slow(ms) | Deed::Stuck(ms, Half::Nothing) => Duration::from_millis(*ms),
            Deed::Fast
            | Deed::Stuck(_, Half::Length | Half::Chunked)
            | Deed::Echo(_)
            | Deed::Stream(_)
            | Deed::Panic
            | Deed::Get(_) => continue,
        };
        let Some((head, status, _)) = asked.head else { continue };
        if status == 503
            && head < cancelling
            && timeout.is_none_or(|timeout| head + Duration::from_millis(1) < asked.asked + timeout)
        {
            return Err(format!("a request asked for at {:?} was cut at {head:?}, before its deadline", asked.asked));
        }
        let prompt = matches!(client.traffic, Traffic::Once(Pacing::Prompt) | Traffic::KeepAlive { .. });
        let latest = asked.sent.unwrap_or(asked.asked)
            + timeout.map_or(work, |timeout| work.min(timeout))
            + story.under_way() * 2
            + story.world(Duration::from_millis(10));
        if prompt && story.delivers() && head > latest {
            return Err(format!("the head of an answer was due by {latest:?} and came at {head:?}"));
        }
        judged += usize::from(timeout.is_some_and(|timeout| work >= timeout));
    }
    handlers_have_their_time(story, timeout, cancelling)?;
    Ok(Exercise::of(judged))
}

/// The same, seen from the handlers that answer in one piece: they know to the millisecond.
fn handlers_have_their_time(story: &Story<'_>, timeout: Option<Duration>, cancelling: Duration) -> Result<(), String> {
    let leaves = story.scenario.clients.iter().any(|client| matches!(client.traffic, Traffic::Leaves { .. }));
    if leaves || !story.delivers() {
        return Ok(());
    }
    let mut ends: BTreeMap<u64, Duration> = BTreeMap::new();
    ends.extend(story.server("handler ends").filter_map(|record| Some((record.number("handler")?, record.at))));
    for begins in story.server("handler begins") {
        let target = begins.text("target").unwrap_or_default();
        let work = target.strip_prefix("/slow?ms=").or_else(|| target.strip_prefix("/stuck?ms="));
        let Some(work) = work.and_then(|ms| ms.parse().ok()).map(Duration::from_millis) else { continue };
        let Some(end) = begins.number("handler").and_then(|handler| ends.get(&handler)) else { continue };
        let took = *end - begins.at;
        let due = timeout.map_or(work, |timeout| work.min(timeout));
        if took > due + story.world(LATE) {
            return Err(format!("the handler of {target} at {:?} was at work for {took:?} instead of {due:?}", begins.at));
        }
        if took + EARLY < due && *end < cancelling {
            return Err(format!("the handler of {target} at {:?} was ended after {took:?}, before its time", begins.at));
        }
    }
    Ok(())
}

/// P10: the root context is cancelled after the drain; stop hooks run after the handlers.
pub(super) fn cancel_after_drain(story: &Story<'_>) -> Judgement {
    let cancelling = story.began(Phase::Cancelling);
    let mut judged = 0;
    for record in story.server("handler cancelled").filter(|record| record.text("by") == Some("root")) {
        if cancelling.is_none_or(|cancelling| record.at < cancelling) {
            return Err(format!("a handler was cancelled at {:?}, before the drain was over", record.at));
        }
        judged += 1;
    }
    for record in story.server("abort") {
        let phase = record.text("phase").unwrap_or_default();
        // An upload that stopped arriving is given up in the drain (P6).
        let stalled = phase == "draining" && record.number("age_us") >= Some(PROGRESS_WAIT_US);
        if !stalled && !matches!(phase, "cancelling" | "cleaning_up") {
            return Err(format!("{} was aborted in {phase}", record.text("path").unwrap_or_default()));
        }
    }
    let first_hook =
        story.records.iter().position(|record| record.event == "hook begins" && record.text("half") == Some("stop"));
    let time_was_up =
        story.is_impatient() || story.span(Phase::Cancelling).is_none_or(|span| span >= story.scenario.plan().cancel);
    if let Some(place) = first_hook
        && !time_was_up
    {
        let count = |event| story.records[..place].iter().filter(|record| record.event == event).count();
        let (begun, ended) = (count("handler begins"), count("handler ends"));
        if begun != ended {
            return Err(format!("stop hooks began while {} handlers were at work", begun - ended));
        }
        judged += 1;
    }
    Ok(Exercise::of(judged))
}
