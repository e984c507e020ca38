//! Judges of the requests: P5, P9, P10.

use super::{Asked, End, Exercise, Judgement, Story, exact, ledger};
use crate::trace::Record;
use crate::{
    app::{SLOW_DONE, STUCK_HALVES},
    scenario::{Client, Deed, Filter, Half, Pacing, Traffic},
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use std::{collections::BTreeMap, time::Duration};

/// How long handshakes under way have at most, once newcomers are kept out.
const SETTLE_MAX: Duration = Duration::from_millis(250);

/// The least time in which what ends gets out.
const FLUSH: Duration = Duration::from_millis(20);

/// A head may wait behind as many bytes of another stream for longer than anybody flushes.
const BEYOND_THE_FLUSH: usize = 10_000;

/// How long a client may be still in the drain, and about that.
const PATIENCE_MS: u64 = 4_000;

/// How long an upload may stand still in the drain, by the host's clock.
const PROGRESS_WAIT_US: u64 = 5_000_000;

/// How long after its deadline a request may go on, by the host's clock, with the rounding of timers.
const LATE: Duration = Duration::from_millis(10 + 1);
/// Clocks round.
const EARLY: Duration = Duration::from_micros(1);

/// P5: every request has one fate, and what was cut does not look whole.
pub(super) fn one_fate_per_request(story: &Story<'_>) -> Judgement {
    if let Some(report) = &story.outcome.report {
        let tally = &report.requests;
        let ended = tally.finished + tally.timed_out + tally.aborted + tally.gone;
        if tally.started != ended {
            return Err(format!("{} requests started and {ended} ended", tally.started));
        }
        counts_agree(story, tally)?;
        counts_agree_with_handlers(story, tally)?;
        ledger::fates_are_counted(story, report)?;
    }
    exact::heads_have_their_time(story)?;
    exact::uploads_have_their_time(story)?;
    exact::readers_have_their_time(story)?;
    exact::late_words_are_heard(story)?;
    exact::nobody_comes_after_the_seal(story)?;
    exact::the_gone_are_noticed(story)?;
    for asked in &story.requests {
        looks_whole_only_if_it_is(story, asked)?;
        is_not_lost(story, asked)?;
        says_why(asked)?;
        is_not_cut_early(story, asked)?;
        events_end_at_the_drain(story, asked)?;
    }
    Ok(Exercise::of(story.requests.len()))
}

/// What the host counts is what clients saw.
fn counts_agree(story: &Story<'_>, tally: &lameduck::RequestTally) -> Result<(), String> {
    let ends = || story.requests.iter().filter_map(|asked| asked.end.as_ref());
    // What never became a request is answered, and not counted.
    let answered = ends().filter(|(_, end)| matches!(end, End::Completed(status, _) if ![400, 408, 431].contains(status)));
    let upgraded = story.records.iter().filter(|record| record.event == "upgraded");
    let answered = (answered.count() + upgraded.count()) as u64;
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
    // What is torn may be cut with a 503 half written.
    if story.everybody_stays()
        && !story.is_torn()
        && !unended
        && !gave_up
        && !overtaken
        && answered < tally.finished + tally.timed_out
    {
        return Err(format!("clients got {answered} whole answers, fewer than the host says it gave: {tally:?}"));
    }
    Ok(())
}

/// What the host counts is what its handlers saw.
fn counts_agree_with_handlers(story: &Story<'_>, tally: &lameduck::RequestTally) -> Result<(), String> {
    let others = |client: &Client| matches!(client.deed, Deed::Get(_) | Deed::Post(..));
    if story.scenario.clients.iter().any(others) {
        // Another app's handlers do not tell.
        return Ok(());
    }
    let begun = story.server("handler begins").count() as u64;
    if tally.started != begun {
        return Err(format!("{begun} handlers began, and the host counts {} requests", tally.started));
    }
    let panicked = story.server("handler begins").filter(|record| record.text("target") == Some("/panic")).count() as u64;
    let broke = story
        .scenario
        .clients
        .iter()
        .any(|client| [Some(&client.deed), client.then.as_ref()].contains(&Some(&Deed::Breaks)));
    if !broke && tally.panicked != panicked {
        return Err(format!("{panicked} handlers panicked, and the host counts {}", tally.panicked));
    }
    let leaves = |client: &Client| {
        matches!(client.traffic, Traffic::Leaves { .. } | Traffic::Http2Leaves { .. } | Traffic::Upgraded { .. })
    };
    let stays = !story.scenario.clients.iter().any(leaves)
        && story.requests.iter().all(|asked| matches!(&asked.end, Some((_, End::Completed(..)))));
    if stays && tally.gone > 0 {
        return Err(format!("nobody left, and the host counts {} clients as gone", tally.gone));
    }
    Ok(())
}

/// What was cut before its head says why.
fn says_why(asked: &Asked) -> Result<(), String> {
    match asked.end {
        Some((at, End::Completed(503, 0))) => Err(format!("a 503 for {} at {at:?} does not say why", asked.target)),
        Some(_) | None => Ok(()),
    }
}

/// An answer that has begun goes on to its end until the cancel wait.
fn is_not_cut_early(story: &Story<'_>, asked: &Asked) -> Result<(), String> {
    let Some((at, End::Failed(how))) = &asked.end else { return Ok(()) };
    // A body that breaks off takes its connection with it.
    let breaks = |client: &Client| client.deed == Deed::Breaks || client.then == Some(Deed::Breaks);
    if story.client(asked).is_some_and(breaks) {
        return Ok(());
    }
    let early = story.began(Phase::Cancelling).is_none_or(|cancelling| *at < cancelling);
    let patient = |client: &Client| match client.traffic {
        Traffic::Leaves { .. } | Traffic::Http2Leaves { .. } | Traffic::Once(Pacing::SlowReader(..)) => false,
        Traffic::Once(_)
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Late { .. }
        | Traffic::ByteLess
        | Traffic::HalfHead
        | Traffic::InternalHalfHead
        | Traffic::SilentHttp2
        | Traffic::Upgraded { .. } => true,
    };
    let cut = matches!(how.as_str(), "reset-in-body" | "body-cut" | "stream-reset");
    if early && cut && asked.head.is_some() && story.client(asked).is_some_and(patient) && story.delivers() {
        return Err(format!("the answer to {} was cut at {at:?}, before the cancel wait", asked.target));
    }
    Ok(())
}

/// Events end with the drain's beginning, and whole.
fn events_end_at_the_drain(story: &Story<'_>, asked: &Asked) -> Result<(), String> {
    let is_events = story.deed(asked) == Some(&Deed::Events);
    let (Some((head, ..)), Some(draining), Some((at, end))) = (asked.head, story.began(Phase::Draining), &asked.end) else {
        return Ok(());
    };
    // Where there is no time for it, nothing ends well.
    let hurried = story.scenario.plan().drain < FLUSH || story.is_impatient();
    if !is_events || hurried || !story.delivers() {
        return Ok(());
    }
    let by = draining.max(head) + story.under_way() * 2;
    if *at < draining || !matches!(end, End::Completed(..)) || *at > by {
        return Err(format!("events that were to end with the drain, at {draining:?}, ended at {at:?} with {end:?}"));
    }
    Ok(())
}

fn looks_whole_only_if_it_is(story: &Story<'_>, asked: &Asked) -> Result<(), String> {
    let Some((at, End::Completed(200, bytes))) = &asked.end else { return Ok(()) };
    let whole = match story.deed(asked) {
        Some(Deed::Slow(_) | Deed::Within(..)) => SLOW_DONE.len() as u64,
        Some(Deed::Stuck(..)) => STUCK_HALVES.concat().len() as u64,
        Some(Deed::Echo(bytes) | Deed::Bytes(bytes)) => *bytes as u64,
        Some(Deed::Unlimited(_)) => SLOW_DONE.len() as u64,
        Some(Deed::Head) => 0,
        Some(
            Deed::Fast
            | Deed::Stream(_)
            | Deed::Unread(_)
            | Deed::Panic
            | Deed::Breaks
            | Deed::Events
            | Deed::Work(..)
            | Deed::Get(_)
            | Deed::Post(..),
        )
        | None => {
            return Ok(());
        }
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
    let halved = matches!(
        client.deed_of(&asked.target),
        Deed::Stuck(_, Half::Length | Half::Chunked)
            | Deed::Stream(_)
            | Deed::Events
            | Deed::Breaks
            | Deed::Bytes(BEYOND_THE_FLUSH..)
    );
    if halved && story.began(Phase::Cancelling).is_some_and(|cancelling| *at >= cancelling) {
        return Ok(());
    }
    // A stream that was refused or never sent may be tried again (RFC 9113 §8.7).
    let lost = matches!(how.as_str(), "reset-before-head" | "end-before-head" | "stream-reset");
    // Who left a body unread before may have been told nothing of it: hyper closes behind such an answer.
    if matches!(client.deed, Deed::Unread(_)) && asked.earlier > 0 {
        return Ok(());
    }
    let prompt = match client.traffic {
        // It takes so long to read that it is given up.
        Traffic::Once(Pacing::SlowReader(_, pause)) if pause > PATIENCE_MS => false,
        Traffic::Once(Pacing::Prompt | Pacing::HalfClosed | Pacing::SlowReader(..))
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. } => true,
        Traffic::Once(Pacing::HeadPause(_) | Pacing::SlowUpload(..))
        | Traffic::Http2Leaves { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::ByteLess
        | Traffic::HalfHead
        | Traffic::InternalHalfHead
        | Traffic::SilentHttp2
        | Traffic::Upgraded { .. } => false,
    };
    // Nobody waits for the rest of a body that nobody reads, and whoever sends it gets the answer all the same.
    let unread = matches!(client.deed_of(&asked.target), Deed::Unread(_));
    let prompt = prompt || (unread && matches!(client.traffic, Traffic::Once(Pacing::SlowUpload(..))));
    if !lost || asked.head.is_some() || !prompt || !story.flushes() {
        return Ok(());
    }
    let draining = story.began(Phase::Draining).unwrap_or(Duration::MAX);
    if !story.delivers_by(draining) || (draining == Duration::MAX && !story.delivers()) {
        return Ok(());
    }
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
        let work = match client.deed_of(&asked.target) {
            Deed::Slow(ms) | Deed::Stuck(ms, Half::Nothing) => Duration::from_millis(*ms),
            Deed::Fast
            | Deed::Stuck(_, Half::Length | Half::Chunked)
            | Deed::Echo(_)
            | Deed::Unread(_)
            | Deed::Stream(_)
            | Deed::Panic
            | Deed::Breaks
            | Deed::Events
            | Deed::Work(..)
            | Deed::Within(..)
            | Deed::Unlimited(_)
            | Deed::Head
            | Deed::Bytes(_)
            | Deed::Get(_)
            | Deed::Post(..) => continue,
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
    exact::contexts_are_true(story)?;
    exact::cancelled_at_the_deadline(story)?;
    exact::the_deadline_goes_first(story)?;
    Ok(Exercise::of(judged))
}

/// The same, seen from the handlers that answer in one piece: they know to the millisecond.
fn handlers_have_their_time(story: &Story<'_>, timeout: Option<Duration>, cancelling: Duration) -> Result<(), String> {
    if !story.everybody_stays() {
        return Ok(());
    }
    let mut ends: BTreeMap<u64, Duration> = BTreeMap::new();
    ends.extend(story.server("handler ends").filter_map(|record| Some((record.number("handler")?, record.at))));
    for begins in story.server("handler begins") {
        let target = begins.text("target").unwrap_or_default();
        let work = target.strip_prefix("/slow?ms=").or_else(|| target.strip_prefix("/stuck?ms="));
        let (work, within) = work.map(|ms| ms.split_once("&within=").unwrap_or((ms, ""))).unzip();
        let Some(work) = work.and_then(|ms: &str| ms.parse().ok()).map(Duration::from_millis) else { continue };
        // A route's own deadline takes the place of the host's; or none does.
        let own = within.and_then(|ms: &str| ms.parse().ok()).map(|ms| story.world(Duration::from_millis(ms)));
        let timeout = if within == Some("none") { None } else { own.or(timeout) };
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
        // A body that breaks off is nobody's doing: on HTTP/1 it takes answers with it that had not left.
        let breaks = record.text("by_shutdown") == Some("no");
        if breaks && !story.requests.iter().any(|asked| asked.target == "/breaks") {
            return Err(format!("{} broke off by itself", record.text("path").unwrap_or_default()));
        }
        if !stalled && !breaks && !matches!(phase, "cancelling" | "cleaning_up") {
            return Err(format!("{} was aborted in {phase}", record.text("path").unwrap_or_default()));
        }
    }
    told_at_their_moments(story)?;
    aborted_in_time(story)?;
    exact::cancelled_on_time(story)?;
    exact::tasks_are_told(story)?;
    exact::nothing_is_left_behind(story)?;
    let first_hook =
        story.records.iter().position(|record| record.event == "hook begins" && record.text("half") == Some("stop"));
    let time_was_up = story.is_impatient()
        || story.span(Phase::Cancelling).is_none_or(|span| span + story.rounding() >= story.scenario.plan().cancel);
    if let Some(place) = first_hook
        && !time_was_up
    {
        let count = |event| story.records[..place].iter().filter(|record| record.event == event).count();
        let (begun, ended) = (count("handler begins"), count("handler ends"));
        if begun != ended {
            return Err(format!("stop hooks began while {} handlers were at work", begun - ended));
        }
        let (begun, ended) = (count("task begins"), count("task ends"));
        if begun != ended {
            return Err(format!("stop hooks began while {} tasks were at work", begun - ended));
        }
        let hook_began = story.records[place].at;
        let begun = story.server("conversation begins").count();
        let ended = story.server("conversation ends").filter(|record| record.at <= hook_began).count();
        if begun > ended {
            return Err(format!("stop hooks began while {} upgraded connections were open", begun - ended));
        }
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// Tasks are told of each moment when it comes, and not before.
fn told_at_their_moments(story: &Story<'_>) -> Result<(), String> {
    let moments = [
        ("stopping", story.left_serving()),
        ("draining", story.began(Phase::Draining)),
        ("cancelled", story.began(Phase::Cancelling)),
    ];
    for record in story.server("task told") {
        let of = record.text("of").unwrap_or_default();
        let Some((_, came)) = moments.iter().find(|(moment, _)| *moment == of) else { continue };
        // One that begins later is told at once.
        let task = record.text("task");
        let begun = story.server("task begins").filter(|begun| begun.text("task") == task).map(|begun| begun.at).max();
        let due = came.map(|came| came.max(begun.unwrap_or_default()));
        if due != Some(record.at) {
            return Err(format!("{} was told of {of} at {:?} instead of {due:?}", task.unwrap_or_default(), record.at));
        }
    }
    Ok(())
}

/// What ignores the cancellation has the cancel wait but for the flush.
fn aborted_in_time(story: &Story<'_>) -> Result<(), String> {
    let (Some(cancelling), false) = (story.began(Phase::Cancelling), story.is_impatient()) else { return Ok(()) };
    let until = cancelling + story.world(story.scenario.plan().cancel.saturating_sub(ABORT_FLUSH));
    let tasks = story.server("task ends").filter(|record| record.text("how") == Some("dropped"));
    // An upload that stands still is cut in the drain.
    // What breaks off does so by itself.
    let cut = |record: &&Record| record.text("message") == Some("request aborted") && record.text("path") != Some("/breaks");
    let requests = story.server("log").filter(cut);
    let requests = requests.filter(|record| record.text("phase") != Some("draining"));
    // Nor has it more time because the cancel wait began meanwhile.
    let uploads = |client: &Client| matches!(client.traffic, Traffic::Once(Pacing::SlowUpload(..)));
    let uploads = story.scenario.clients.iter().any(uploads);
    let requests = requests.filter(move |record| !uploads || record.number("age_ms") < Some(PROGRESS_WAIT_US / 1_000));
    for cut in tasks.chain(requests) {
        if cut.at + EARLY + story.rounding() < until {
            return Err(format!("what was at work was cut at {:?}, and had until {until:?} to return", cut.at));
        }
    }
    Ok(())
}
