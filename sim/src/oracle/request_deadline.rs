//! The oracle for P9: a deadline per request.

use super::{Exercise, Judgement, RunHistory, handler_times};
use crate::scenario::{Pacing, RareRequest, RequestKind, StuckResponse, Traffic};
use lameduck::lifecycle::Phase;
use std::{collections::BTreeMap, time::Duration};

/// How long a request may continue after its deadline, by the host's clock, including the rounding
/// of timers.
const LATE: Duration = Duration::from_millis(10 + 1);
/// How far a skewed clock may go on within an instant.
const WITHIN_AN_INSTANT: Duration = Duration::from_millis(1);
/// Rounding of clocks.
pub(super) const EARLY: Duration = Duration::from_micros(1);

/// P9: a request is not cut before its deadline, nor long after it.
pub(super) fn a_deadline_per_request(history: &RunHistory<'_>) -> Judgement {
    handler_times::own_timeouts_are_kept(history)?;
    let timeout =
        history.scenario.request_timeout_ms.map(|ms| history.world(Duration::from_millis(ms)));
    let cancelling = history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
    let mut judged = 0;
    for observed in &history.requests {
        let Some(client) = history.client(observed) else { continue };
        let work = match client.request_kind_of(observed.kind) {
            RequestKind::Slow(ms) | RequestKind::Stuck(ms, StuckResponse::Nothing) => {
                Duration::from_millis(*ms)
            }
            RequestKind::Rare(RareRequest::Late { ms, bytes: ..=10_000, .. }) => {
                Duration::from_millis(*ms)
            }
            RequestKind::Fast
            | RequestKind::Stuck(_, StuckResponse::Length | StuckResponse::Chunked)
            | RequestKind::Echo(_)
            | RequestKind::Unread(_)
            | RequestKind::Stream(_)
            | RequestKind::Panic
            | RequestKind::Breaks
            | RequestKind::Events
            | RequestKind::Work(..)
            | RequestKind::Within(..)
            | RequestKind::Unlimited(_)
            | RequestKind::Head
            | RequestKind::HeadOf(_)
            | RequestKind::Bytes(_)
            | RequestKind::User(_)
            | RequestKind::Odd(_)
            | RequestKind::Mismatch(_)
            | RequestKind::Rare(_) => continue,
        };
        let Some((head, status, _)) = observed.head else { continue };
        if status == 503
            && head < cancelling
            && timeout
                .is_none_or(|timeout| head + Duration::from_millis(1) < observed.observed + timeout)
        {
            return Err(format!(
                "a request sent at {:?} timed out at {head:?}, before its deadline",
                observed.observed
            ));
        }
        let prompt =
            matches!(client.traffic, Traffic::Once(Pacing::Prompt) | Traffic::KeepAlive { .. });
        let latest = observed.sent.unwrap_or(observed.observed)
            + timeout.map_or(work, |timeout| work.min(timeout))
            + history.under_way() * 2
            + history.world(Duration::from_millis(10))
            + history.tolerance();
        // At the connection limit a request waits in the kernel's queue.
        if prompt && !history.may_wait_for_room() && history.delivers() && head > latest {
            return Err(format!("a response head was due by {latest:?}, but arrived at {head:?}"));
        }
        judged += usize::from(timeout.is_some_and(|timeout| work >= timeout));
    }
    handlers_have_their_time(history, timeout, cancelling)?;
    handler_times::contexts_are_true(history)?;
    handler_times::handlers_are_polled_when_woken(history)?;
    handler_times::cancelled_at_the_deadline(history)?;
    handler_times::contexts_end_with_their_handlers(history)?;
    handler_times::the_deadline_goes_first(history)?;
    Ok(Exercise::of(judged))
}

/// The same from the view of the handlers that send their response in one piece. Their records are
/// exact to the millisecond.
fn handlers_have_their_time(
    history: &RunHistory<'_>,
    timeout: Option<Duration>,
    cancelling: Duration,
) -> Result<(), String> {
    if !history.all_clients_stay() {
        return Ok(());
    }
    let mut ends: BTreeMap<u64, Duration> = BTreeMap::new();
    ends.extend(
        history
            .server("handler ends")
            .filter_map(|record| Some((record.number("handler")?, record.at))),
    );
    for begins in history.server("handler begins") {
        let target = begins.text("target").unwrap_or_default();
        let work = target.strip_prefix("/slow?ms=").or_else(|| target.strip_prefix("/stuck?ms="));
        let (work, within) = work.map(|ms| ms.split_once("&within=").unwrap_or((ms, ""))).unzip();
        let Some(work) = work.and_then(|ms: &str| ms.parse().ok()).map(Duration::from_millis)
        else {
            continue;
        };
        // A route's own deadline replaces the host's; `none` removes it.
        let own = within
            .and_then(|ms: &str| ms.parse().ok())
            .map(|ms| history.world(Duration::from_millis(ms)));
        let timeout = if within == Some("none") { None } else { own.or(timeout) };
        let Some(end) = begins.number("handler").and_then(|handler| ends.get(&handler)) else {
            continue;
        };
        let took = *end - begins.at;
        let due = timeout.map_or(work, |timeout| work.min(timeout));
        if took > due + history.world(LATE) + history.tolerance() {
            return Err(format!(
                "the handler of {target} at {:?} ran for {took:?} instead of {due:?}",
                begins.at
            ));
        }
        // The deadline counts from the head, and the handler may begin later.
        let is_skewed = history.scenario.clock_skew_ppm != 0;
        let early = if is_skewed { WITHIN_AN_INSTANT } else { EARLY };
        if took + early + history.tolerance() < due && *end < cancelling {
            return Err(format!(
                "the handler of {target} at {:?} was ended after {took:?}, before its time",
                begins.at
            ));
        }
    }
    Ok(())
}
