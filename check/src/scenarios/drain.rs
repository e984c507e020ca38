//! The end of the lame duck delay, when the listener closes and the drain begins.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    scenarios::{
        http2::expect_streams,
        request::{expect_all, expect_in_flight},
    },
    trial::{Abort, Trial, get, route},
};
use lameduck_wire::http1::Client;
use std::time::Duration;

const SHOULD: Weight = Weight::Always(Grade::Should);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "drain/backlog",
        weight: SHOULD,
        needs: &[],
        does: "Freezes the process shortly before --lame-duck is over, opens connections and sends \
               a request on each, and continues the process when it is over.",
        why: "The kernel completes handshakes until the listener is closed. The process finds the \
              queue and its expired timer at the same moment.",
        rule: "listen(2): closing the socket resets its queue; RFC 9110 §9.2.2 on what may be \
               repeated",
        repair: "Accept until the queue is empty, then close the listener.",
        play: backlog,
    },
    Scenario {
        name: "drain/idle-request",
        weight: SHOULD,
        needs: &[Need::KeepAlive],
        does: "Freezes the process shortly before --lame-duck is over, sends a request on each of \
               several kept connections, and continues the process when it is over.",
        why: "Idle connections are closed when the drain begins. A server that does not look at \
              the socket once more resets what has arrived.",
        rule: "RFC 9112 §9.5 and §9.6; close(2) with unread bytes sends RST",
        repair: "Before an idle connection is closed, read once more, and serve what is there.",
        play: idle_request,
    },
    Scenario {
        name: "drain/in-flight",
        weight: SHOULD,
        needs: &[Need::Slow],
        does: "Requests responses that take 800 ms longer than --lame-duck, and the stop 50 ms \
               later.",
        why: "A request that begins before the stop may end after the listener was closed.",
        rule: "RFC 9110 §9.2.2: the client may not repeat what it cannot know to be unserved",
        repair: "Count the time for requests from the close of the listener, not from the signal.",
        play: in_flight,
    },
    Scenario {
        name: "drain/http2",
        weight: SHOULD,
        needs: &[Need::Http2, Need::Slow],
        does: "Opens three streams whose responses take 1.5 s longer than --lame-duck, and \
               requests the stop 50 ms later.",
        why: "After its GOAWAY a connection still carries the requests of many users.",
        rule: "RFC 9113 §6.8: streams up to the last stream id are still served",
        repair: "After the GOAWAY keep the connection until its streams have ended.",
        play: http2,
    },
];

const CLIENTS: usize = 4;
/// From the freeze to the end of the delay, and from there to the continuation.
const MARGIN: Duration = Duration::from_millis(40);
/// From the requests to the stop.
const BEGUN: Duration = Duration::from_millis(50);

/// Requests the stop, and freezes the process shortly before the end of the lame duck delay.
fn freeze_at_end(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.stop()?;
    trial.wait_until(trial.target.lame_duck.saturating_sub(MARGIN));
    trial.freeze()?;
    if trial.since_stop() < trial.target.lame_duck { Ok(()) } else { Err(frozen_late()) }
}

fn frozen_late() -> Abort {
    Abort::Broken(
        "--lame-duck was over before the process was frozen: the machine is busy".to_owned(),
    )
}

/// Continues the process after the lame duck delay, and expects a response from each.
fn thaw_and_expect(trial: &mut Trial<'_>, clients: Vec<(Client, String)>) -> Result<(), Abort> {
    trial.wait_until(trial.target.lame_duck + MARGIN);
    trial.thaw()?;
    expect_all(trial, clients);
    Ok(())
}

fn closed_early(what: &str) -> Abort {
    Abort::Skip(format!("the server closes {what} before --lame-duck is over"))
}

fn backlog(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    freeze_at_end(trial)?;
    let request = get(&trial.target.paths.plain);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let label = format!("queued {n}");
        let track = trial.recorder.track(&label);
        let Ok(mut client) = trial.try_connect(track)? else {
            return Err(closed_early("its listener"));
        };
        client.send(&request)?;
        clients.push((client, label));
    }
    thaw_and_expect(trial, clients)
}

fn idle_request(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let request = get(&trial.target.paths.plain);
    let mut clients = trial.keep_all(CLIENTS)?;
    freeze_at_end(trial)?;
    for (client, _) in &mut clients {
        if !client.is_silent_for(Duration::from_millis(1)) || client.send(&request).is_err() {
            return Err(closed_early("idle connections"));
        }
    }
    thaw_and_expect(trial, clients)
}

/// Returns the path of a response that takes this much longer than the lame duck delay.
pub(super) fn slower_than_the_delay(trial: &Trial<'_>, by: Duration) -> String {
    let takes = trial.target.stop_takes + trial.target.lame_duck + by;
    let slow = trial.target.paths.slow.as_deref().unwrap_or_default();
    route(slow, u64::try_from(takes.as_millis()).unwrap_or(u64::MAX))
}

fn in_flight(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = slower_than_the_delay(trial, Duration::from_millis(800));
    expect_in_flight(trial, &path, BEGUN)
}

fn http2(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = slower_than_the_delay(trial, Duration::from_millis(1500));
    expect_streams(trial, &path, BEGUN)
}
