//! The oracle for P5: one outcome per request, which its client sees.

use super::{
    Exercise, Judgement, ObservedRequest, RequestResult, RunHistory, accounting, books,
    client_times, outcomes, sealing, serving,
};
use crate::{
    app::{SLOW_DONE, STUCK_HALVES},
    content,
    scenario::{
        Client, Filter, RareRequest, RequestKind, StuckResponse, Traffic, has_failing_body,
    },
    trace::Fnv64,
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use std::time::Duration;

/// Longest wait for pending handshakes once new connections are kept out.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_millis(250);
/// Shortest time in which the end of a response is certain to be sent.
const FLUSH: Duration = Duration::from_millis(20);
/// Body size from which a head may be delayed by another stream for longer than the flush lasts.
const LARGER_THAN_A_FLUSH: usize = 10_000;
/// Roughly how long a client may make no progress in the drain.
const PATIENCE_MS: u64 = 4_000;

/// P5: every request has exactly one outcome, and a response that was cut does not look complete.
pub(super) fn one_outcome_per_request(history: &RunHistory<'_>) -> Judgement {
    if let Some(report) = &history.outcome.report {
        let tally = &report.requests;
        let ended = tally.finished + tally.timed_out + tally.aborted + tally.gone;
        if tally.started != ended {
            return Err(format!("{} requests started, but {ended} ended", tally.started));
        }
        counts_match_the_clients(history, tally)?;
        counts_match_the_handlers(history, tally)?;
        accounting::outcomes_are_counted(history, report)?;
    }
    client_times::heads_have_their_time(history)?;
    client_times::uploads_have_their_time(history)?;
    client_times::readers_have_their_time(history)?;
    client_times::late_first_bytes_are_served(history)?;
    sealing::nothing_is_accepted_after_the_seal(history)?;
    sealing::all_are_sealed_before_one_is_closed(history)?;
    client_times::departed_clients_are_noticed(history)?;
    serving::nothing_arrives_unasked(history)?;
    serving::lengths_are_of_the_status(history)?;
    books::balance(history)?;
    for observed in &history.requests {
        looks_complete_only_if_complete(history, observed)?;
        serving::odd_requests_are_answered(history, observed)?;
        is_not_lost(history, observed)?;
        says_why(observed)?;
        is_not_cut_early(history, observed)?;
        events_end_at_the_drain(history, observed)?;
        long_polls_end_at_the_cancellation(history, observed)?;
        padded_bodies_are_compared(history, observed)?;
    }
    Ok(Exercise::of(history.requests.len()))
}

/// Compares the host's counters with what the clients saw.
fn counts_match_the_clients(
    history: &RunHistory<'_>,
    tally: &lameduck::RequestStats,
) -> Result<(), String> {
    let ends = || history.requests.iter().filter_map(|observed| observed.end.as_ref());
    // A malformed request gets a response, but is not counted as a request. One with a wrong `Host`
    // is. Nothing of this concerns a response of the service.
    let counts = |observed: &&ObservedRequest| match &observed.end {
        Some((_, RequestResult::Completed(..))) if observed.is_by_service() => true,
        Some((_, RequestResult::Completed(400, _))) => history.is_refused(observed),
        Some((_, RequestResult::Completed(status, _))) => ![408, 431].contains(status),
        Some((_, RequestResult::Failed(_))) | None => false,
    };
    let answered = history.requests.iter().filter(counts);
    let upgraded = history.events("upgraded");
    let answered = (answered.count() + upgraded.count()) as u64;
    let unended = history.requests.iter().any(|observed| observed.end.is_none());
    let gave_up =
        ends().any(|(_, end)| matches!(end, RequestResult::Failed(how) if how == "timed-out"));
    let is_uncertain = |observed: &&ObservedRequest| {
        outcomes::shares_a_buffer(history, observed) && counts(observed)
    };
    let uncertain = || history.requests.iter().filter(is_uncertain).count() as u64;
    let counted = tally.finished + tally.timed_out + tally.aborted;
    if answered > counted && answered > counted + uncertain() {
        return Err(format!(
            "clients got {answered} responses, more than the host counts: {tally:?}"
        ));
    }
    // A reset that aborts one request may discard complete responses of other requests on the same
    // connection.
    let overtaken = history.requests.iter().any(|observed| {
        let shares = |client: &Client| {
            matches!(client.traffic, Traffic::Http2 { .. } | Traffic::Pipelined { .. })
        };
        history.client(observed).is_some_and(shares)
            && observed.failure().is_some_and(|how| how.starts_with("reset"))
    });
    // With partial writes a 503 may be cut half way.
    if history.all_clients_stay()
        && !history.has_partial_io()
        && !unended
        && !gave_up
        && !overtaken
        && answered < tally.finished + tally.timed_out
    {
        return Err(format!(
            "clients got {answered} complete responses, fewer than the host counts: {tally:?}"
        ));
    }
    Ok(())
}

/// Compares the host's counters with what its handlers saw.
fn counts_match_the_handlers(
    history: &RunHistory<'_>,
    tally: &lameduck::RequestStats,
) -> Result<(), String> {
    let others = |client: &Client| matches!(client.request_kind, RequestKind::User(_));
    if history.scenario.clients.iter().any(others) {
        // The handlers of another app record nothing.
        return Ok(());
    }
    let begun = history.server("handler begins").count() as u64;
    // These reach no handler, and their response may not reach the client.
    let refused =
        history.requests.iter().filter(|observed| history.is_refused(observed)).count() as u64;
    if tally.started < begun || tally.started > begun + refused {
        return Err(format!(
            "{begun} handlers began, but the host counts {} requests",
            tally.started
        ));
    }
    let panicked = history
        .server("handler begins")
        .filter(|record| {
            record.text("target").and_then(|target| target.split('?').next()) == Some("/panic")
        })
        .count() as u64;
    let mut kinds = history.scenario.clients.iter().flat_map(Client::kinds);
    // That of a response to HEAD may be polled or not.
    let breaks = |kind: &RequestKind| {
        let is_head = matches!(kind, RequestKind::HeadOf(_));
        *kind == RequestKind::Breaks || is_head && has_failing_body(kind)
    };
    let broke = kinds.any(breaks);
    // Whether one that panics when it is dropped counts is not promised.
    let broke = broke
        || history.server("handler begins").any(|record| {
            record.text("target").is_some_and(|target| {
                target.contains("drop=panics") || target.starts_with("/fails")
            })
        });
    if !broke && tally.panicked != panicked {
        return Err(format!(
            "{panicked} handlers panicked, but the host counts {}",
            tally.panicked
        ));
    }
    let leaves = |client: &Client| client.traffic.leaves();
    let stays = !history.scenario.clients.iter().any(leaves)
        && history
            .requests
            .iter()
            .all(|observed| matches!(&observed.end, Some((_, RequestResult::Completed(..)))));
    if stays && tally.gone > 0 {
        return Err(format!("no client left, but the host counts {} as gone", tally.gone));
    }
    Ok(())
}

/// Checks that a 503 has a body that gives the reason.
fn says_why(observed: &ObservedRequest) -> Result<(), String> {
    match observed.end {
        Some((at, RequestResult::Completed(503, 0)))
            if !observed.is_by_service() && observed.call.is_none() && !observed.is_head =>
        {
            Err(format!("a 503 for {} at {at:?} has no reason", observed.target))
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks that a response whose head was sent is not cut before the cancel wait.
fn is_not_cut_early(history: &RunHistory<'_>, observed: &ObservedRequest) -> Result<(), String> {
    let Some((at, RequestResult::Failed(how))) = &observed.end else { return Ok(()) };
    if history.failed_in_its_body(observed) || history.may_be_lost_at_its_close(observed) {
        return Ok(());
    }
    // A body that fails aborts its whole connection. On HTTP/1 the responses before it are complete
    // by then.
    if history.client(observed).is_some_and(Client::has_failing_body)
        && (history.is_http2(observed) || follows_a_failing_body(history, observed))
    {
        return Ok(());
    }
    let early = history.began(Phase::Cancelling).is_none_or(|cancelling| *at < cancelling);
    let patient = |client: &Client| client.traffic.is_patient();
    let cut = matches!(how.as_str(), "reset-in-body" | "body-cut" | "stream-reset");
    if early
        && cut
        && observed.head.is_some()
        && history.client(observed).is_some_and(patient)
        && history.delivers()
    {
        return Err(format!(
            "the response to {} was cut at {at:?}, before the cancel wait",
            observed.target
        ));
    }
    Ok(())
}

/// Whether the body of this response fails, or of one before it on the same connection.
fn follows_a_failing_body(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    history.requests.iter().any(|other| {
        (other.client, other.connection) == (observed.client, observed.connection)
            && other.earlier <= observed.earlier
            && history.request_kind(other).is_some_and(has_failing_body)
    })
}

/// Checks that event streams end at the start of the drain, and complete.
fn events_end_at_the_drain(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
) -> Result<(), String> {
    let is_events = history.request_kind(observed) == Some(&RequestKind::Events);
    let (Some((head, ..)), Some(draining), Some((at, end))) =
        (observed.head, history.began(Phase::Draining), &observed.end)
    else {
        return Ok(());
    };
    // A drain that is too short leaves no time for a regular end.
    let hurried = history.scenario.plan().drain < FLUSH || history.is_impatient();
    if !is_events || hurried || !history.delivers() {
        return Ok(());
    }
    let by = draining.max(head) + history.under_way() * 2 + history.tolerance();
    if *at < draining || !matches!(end, RequestResult::Completed(..)) || *at > by {
        return Err(format!(
            "events had to end with the drain at {draining:?}, but ended at {at:?} with {end:?}"
        ));
    }
    Ok(())
}

/// Checks that long polls end when the root context is cancelled, and complete.
fn long_polls_end_at_the_cancellation(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
) -> Result<(), String> {
    let is_it =
        history.request_kind(observed) == Some(&RequestKind::Rare(RareRequest::EndAtCancel));
    let (Some((head, ..)), Some(cancelling), Some((at, end))) =
        (observed.head, history.began(Phase::Cancelling), &observed.end)
    else {
        return Ok(());
    };
    // What has not begun to end by the abort is cut.
    let hurried = history.scenario.plan().cancel < ABORT_FLUSH + FLUSH
        || history.is_impatient()
        || head >= cancelling;
    let stays = history.client(observed).is_some_and(|client| client.traffic.is_patient());
    if !is_it || hurried || !stays || !history.delivers() {
        return Ok(());
    }
    let by = cancelling + history.under_way() * 2 + history.tolerance();
    if *at < cancelling || !matches!(end, RequestResult::Completed(..)) || *at > by {
        return Err(format!(
            "a long poll had to end with the drain at {cancelling:?}, but ended at {at:?} with \
             {end:?}"
        ));
    }
    Ok(())
}

/// Checks that a body which continues after its length and a few empty frames does not look
/// complete.
fn padded_bodies_are_compared(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
) -> Result<(), String> {
    let fails = matches!(
        history.request_kind(observed),
        Some(RequestKind::Rare(
            RareRequest::Fails | RareRequest::FailsAfter(_) | RareRequest::HasNoLength
        ))
    );
    if fails && matches!(observed.end, Some((_, RequestResult::Completed(200, _)))) {
        return Err("a body that failed looked complete".to_owned());
    }
    // Of its response nothing was sent, and all responses before it were received.
    let is_alone = observed.earlier == 0
        || history
            .client(observed)
            .is_some_and(|client| matches!(client.traffic, Traffic::KeepAlive { .. }));
    let cut = history.began(Phase::Cancelling).or(history.exit().map(|(at, _)| at));
    if fails
        && is_alone
        && !history.is_http2(observed)
        && let Some((at, RequestResult::Failed(how))) = &observed.end
        && matches!(how.as_str(), "reset-before-head" | "reset-in-body")
        && cut.is_none_or(|cut| *at < cut)
        && history.delivers()
    {
        return Err(format!(
            "the body of {} failed at its first poll, and its client got no 500: {how} at \
             {at:?}",
            observed.target
        ));
    }
    let Some(RequestKind::Rare(RareRequest::Padded(frames, true))) = history.request_kind(observed)
    else {
        return Ok(());
    };
    let skipped = history.scenario.cap("empty_frames_max").unwrap_or(16);
    match observed.end {
        Some((at, RequestResult::Completed(200, _))) if *frames < skipped.into() => Err(format!(
            "a body of five bytes, after {frames} empty frames, looked complete with four at {at:?}"
        )),
        Some(_) | None => Ok(()),
    }
}

fn looks_complete_only_if_complete(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
) -> Result<(), String> {
    let Some((at, RequestResult::Completed(200, bytes))) = &observed.end else { return Ok(()) };
    let of_text = |text: &str| (text.len() as u64, Fnv64::of(text.as_bytes()));
    let of_content = |bytes: usize| (bytes as u64, content::hash(bytes));
    let (whole, hash) = match history.request_kind(observed) {
        Some(RequestKind::Slow(_) | RequestKind::Within(..) | RequestKind::Unlimited(_)) => {
            of_text(SLOW_DONE)
        }
        Some(RequestKind::Stuck(..)) => of_text(&STUCK_HALVES.concat()),
        Some(RequestKind::Echo(bytes) | RequestKind::Bytes(bytes)) => of_content(*bytes),
        Some(RequestKind::Rare(RareRequest::Late { bytes, .. })) => of_content(*bytes),
        Some(RequestKind::Head) => of_text(""),
        // The second part of its body always panics.
        Some(RequestKind::Breaks) => {
            return Err(format!("{} at {at:?} looked complete, and panicked", observed.target));
        }
        Some(
            RequestKind::Fast
            | RequestKind::Stream(_)
            | RequestKind::Unread(_)
            | RequestKind::Panic
            | RequestKind::Events
            | RequestKind::Work(..)
            | RequestKind::HeadOf(_)
            | RequestKind::User(_)
            | RequestKind::Odd(_)
            | RequestKind::Mismatch(_)
            | RequestKind::Rare(_),
        )
        | None => {
            return Ok(());
        }
    };
    if *bytes != whole {
        return Err(format!(
            "a response to {} at {at:?} looked complete with {bytes} of {whole} bytes",
            observed.target
        ));
    }
    if observed.body_hash.is_some_and(|observed| observed != hash) {
        return Err(format!("the response to {} at {at:?} has other bytes", observed.target));
    }
    Ok(())
}

/// Whether a request was pipelined, and all requests before it on its connection got responses that
/// did not announce its end.
fn follows_whole_ones(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    let is_pipelined = |client: &Client| {
        let unread = |kind: &RequestKind| {
            matches!(kind, RequestKind::Unread(_) | RequestKind::Odd(_) | RequestKind::Panic)
        };
        matches!(client.traffic, Traffic::Pipelined { .. })
            && client.fields.is_none()
            && !client.has_failing_body()
            && !client.kinds().any(unread)
    };
    let is_whole = |before: &ObservedRequest| {
        matches!(before.end, Some((_, RequestResult::Completed(200, _))))
            && matches!(before.head, Some((_, _, false)))
    };
    history.client(observed).is_some_and(is_pipelined)
        && observed.sent.is_some()
        && history.requests.iter().all(|before| {
            (before.client, before.connection) != (observed.client, observed.connection)
                || before.earlier >= observed.earlier
                || is_whole(before)
        })
}

/// Checks that a request gets at least a response head if it arrived before the drain, or if it is
/// the first on its connection.
fn is_not_lost(history: &RunHistory<'_>, observed: &ObservedRequest) -> Result<(), String> {
    let Some((at, RequestResult::Failed(how))) = &observed.end else { return Ok(()) };
    let Some(client) = history.client(observed) else { return Ok(()) };
    if history.failed_in_its_body(observed) || history.may_be_lost_at_its_close(observed) {
        return Ok(());
    }
    // The host sees that the body continues before it sends the head.
    if matches!(
        client.request_kind_of(observed.kind),
        RequestKind::Rare(
            RareRequest::Padded(_, true)
                | RareRequest::Fails
                | RareRequest::FailsAfter(_)
                | RareRequest::HasNoLength
        )
    ) {
        return Ok(());
    }
    // If the response is aborted at the moment when its head is ready, the head is lost as well.
    let halved = matches!(
        client.request_kind_of(observed.kind),
        RequestKind::Stuck(_, StuckResponse::Length | StuckResponse::Chunked)
            | RequestKind::Stream(_)
            | RequestKind::Events
            | RequestKind::Breaks
            | RequestKind::Mismatch(_)
            | RequestKind::HeadOf(_)
            | RequestKind::Rare(_)
            | RequestKind::Bytes(LARGER_THAN_A_FLUSH..)
    );
    if halved && history.began(Phase::Cancelling).is_some_and(|cancelling| *at >= cancelling) {
        return Ok(());
    }
    // A stream that was refused or never sent may be retried (RFC 9113 §8.7), so it is not lost.
    let lost = matches!(how.as_str(), "reset-before-head" | "end-before-head" | "stream-reset");
    // The host gives up a client that reads more slowly.
    let prompt = client.traffic.is_prompt(PATIENCE_MS) || follows_whole_ones(history, observed);
    // The host does not wait for the rest of a body that the handler does not read. The client gets
    // the response while it still uploads.
    let unread = matches!(client.request_kind_of(observed.kind), RequestKind::Unread(_));
    let prompt = prompt || (unread && client.traffic.upload_pause().is_some());
    if !lost || observed.head.is_some() || !prompt || !history.flushes() {
        return Ok(());
    }
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    // Without descriptors a connection waits in the queue, and so does the drain.
    let cut = history.began(Phase::Cancelling).or(history.exit().map(|(at, _)| at));
    let accepts = history.accepts_all_by().is_some_and(|by| Some(by + FLUSH) < cut);
    let drains = draining < Duration::MAX;
    let reaches = history.delivers_by(draining) && (drains || history.delivers());
    if !(reaches || accepts && drains) {
        return Ok(());
    }
    // Its header may have taken too long, which another oracle judges.
    // A connection of HTTP/2 serves what is sent before its client has received the GOAWAY.
    let crosses_a_close = history.may_cross_an_idle_close(observed) && !history.is_http2(observed);
    if crosses_a_close || client.has_slow_header() || history.may_wait_for_a_stream(observed) {
        return Ok(());
    }
    // A connection that made room was closed before the request had arrived.
    let crosses = *at < observed.observed + history.under_way() * 2 + history.tolerance();
    if history.may_wait_for_room() && observed.earlier > 0 && crosses {
        return Ok(());
    }
    let arrived_before = observed.observed + history.under_way() + history.tolerance() < draining;
    // The first-byte grace is 250 ms, so a connection that sends a request at once is always
    // served. A handshake under way when new connections are shut out completes for the client
    // first. The host waits for it, with three exceptions: the latency is longer than that wait,
    // the drain is shorter than it, or a further SIGINT or SIGQUIT may have ended it.
    // Under TLS two more round trips come before the request.
    let ways = if history.scenario.tls { 6 } else { 2 };
    let settles = history.scenario.syn_filter == Filter::Available
        && !history.is_impatient()
        && history.under_way() * ways
            < history.world(HANDSHAKE_WAIT_MAX.min(history.scenario.plan().drain));
    let fresh = observed.earlier == 0 && settles && !client.waits_for_settings;
    if arrived_before || fresh {
        return Err(format!(
            "client-{} requested {} at {:?} and lost it at {at:?}: {how}",
            observed.client, observed.target, observed.observed
        ));
    }
    Ok(())
}
