//! The probes during a stop.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    scenarios::drain::slower_than_the_delay,
    server::{status_of, status_within},
    target::Url,
    trial::{Abort, Trial, get},
};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ready/fails-first",
        weight: Weight::LameDuck,
        needs: &[Need::Ready],
        does: "Probes the readiness and opens connections after the stop, and compares when \
               each begins to fail.",
        why: "A balancer that probes the process must see the stop before connections are refused. \
              Otherwise it sends requests to a closed port until its next probe.",
        rule: "Kubernetes: Pod lifecycle, termination; HAProxy: `option httpchk`",
        repair: "Respond 503 from the stop request on, and close the listener later.",
        play: fails_first,
    },
    Scenario {
        name: "ready/responds",
        weight: Weight::LameDuck,
        needs: &[Need::Ready],
        does: "Probes the readiness after the stop until it fails, and records how it fails.",
        why: "A probe that is refused looks like a crash, and delays the withdrawal by the \
              probe's timeouts and retries.",
        rule: "Kubernetes: a probe without a response is a failure of the container",
        repair: "Close the listener of the probes last.",
        play: responds,
    },
    Scenario {
        name: "ready/alive",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::Live, Need::Slow],
        does: "Requests a response that takes 1.3 s longer than --lame-duck, then the stop, and \
               probes the liveness until the response has arrived. A probe fails after 1 s, \
               the default of the kubelet.",
        why: "A supervisor that restarts a process that is not alive also ends one that drains, \
              and with it the requests that it still serves.",
        rule: "Supervisors that probe a stopping process, and restart it. The kubelet probes only \
               while the pod stays: it does not probe one that terminates",
        repair: "Respond 200 to the liveness probe for as long as the process runs.",
        play: alive,
    },
];

/// A long lame duck is not waited for.
const LOOK_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// Longest wait for a connect. A SYN that is dropped while a listener closes has no response.
const CONNECT_MAX: Duration = Duration::from_millis(200);

/// The readiness must fail earlier than the connects by more than this. What fails at the same time
/// is seen up to one round of a loop apart.
const SLACK: Duration = Duration::from_millis(50);

fn fails_first(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let address = trial.server()?.address;
    let Some(url) = trial.server()?.ready.clone() else { return Ok(()) };
    trial.stop()?;
    let stopped = Instant::now() - trial.since_stop();
    let most = stopped + trial.target.grace.min(LOOK_MAX);
    let is_over = AtomicBool::new(false);
    // The probes have their own thread: one that hangs must not hide when the listener closes.
    let (unready, refused) = thread::scope(|scope| {
        let probing = scope.spawn(|| first_unready(&url, &is_over));
        let refused = first_refused(address, most);
        is_over.store(true, Relaxed);
        (probing.join().ok().flatten(), refused)
    });
    let unready = unready.map(|at| at - stopped);
    let refused = refused.map(|at| at - stopped);
    if let Some(at) = unready {
        trial.measure("not ready", at);
    }
    if let Some(at) = refused {
        trial.measure("refused", at);
    }
    trial.expect(is_first(unready, refused, trial.target.lame_duck), || match (unready, refused) {
        (None, None) => "it stayed ready after the stop".to_owned(),
        (None, Some(_)) => "connections were refused while it was ready".to_owned(),
        _ => "connections were refused as soon as it was not ready".to_owned(),
    });
    Ok(())
}

// The times are those before each attempt, so that a slow attempt counts for no more than a quick
// one.

/// Probes the readiness until it fails, or until `is_over`.
fn first_unready(url: &Url, is_over: &AtomicBool) -> Option<Instant> {
    while !is_over.load(Relaxed) {
        let begin = Instant::now();
        if status_of(url) != Ok(200) {
            return Some(begin);
        }
        thread::sleep(POLL);
    }
    None
}

/// Connects until a connection is refused. The listener was closed at the first of the attempts
/// that failed in a row.
fn first_refused(address: SocketAddr, most: Instant) -> Option<Instant> {
    let mut closed = None;
    while Instant::now() < most {
        let begin = Instant::now();
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => closed = None,
            Err(error) => {
                let at = *closed.get_or_insert(begin);
                if error.kind() == ErrorKind::ConnectionRefused {
                    return Some(at);
                }
            }
        }
        thread::sleep(POLL);
    }
    None
}

/// Returns whether the readiness failed clearly before connections were refused. The margin is at
/// most half of `--lame-duck`.
fn is_first(unready: Option<Duration>, refused: Option<Duration>, lame_duck: Duration) -> bool {
    match (unready, refused) {
        (Some(unready), Some(refused)) => unready + SLACK.min(lame_duck / 2) < refused,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn responds(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let Some(url) = trial.server()?.ready.clone() else { return Ok(()) };
    trial.stop()?;
    let most = trial.target.grace.min(LOOK_MAX);
    let failed = loop {
        match status_of(&url) {
            Ok(200) if trial.since_stop() < most => thread::sleep(POLL),
            other => break other,
        }
    };
    trial.expect(matches!(failed, Ok(status) if status != 200), || match failed {
        Ok(_) => "it stayed ready after the stop".to_owned(),
        Err(None) => "the probe was refused before it had failed".to_owned(),
        Err(Some(end)) => format!("the probe before it had failed: {end}"),
    });
    Ok(())
}

fn alive(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let Some(url) = trial.server()?.live.clone() else { return Ok(()) };
    if status_within(&url, PROBE_MAX) != Ok(200) {
        let why = format!("--live did not respond 200 within {PROBE_MAX:?} before the stop");
        return Err(Abort::Broken(why));
    }
    // So long that a probe can time out before the process may end.
    let path = slower_than_the_delay(trial, PROBE_MAX + Duration::from_millis(300));
    let mut client = trial.connect("slow")?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(50));
    trial.stop()?;
    // On its own thread: a probe that hangs must not hide when the response has arrived.
    let (sender, arrival) = channel();
    thread::spawn(move || {
        let _ = client.response();
        let _ = sender.send(Instant::now());
    });
    loop {
        let (begin, at) = (Instant::now(), trial.since_stop());
        let status = status_within(&url, PROBE_MAX);
        // A read may time out a tick early.
        let is_silent = begin.elapsed() + POLL >= PROBE_MAX;
        let arrived = arrival.recv_timeout(ARRIVAL_MAX).ok();
        if is_judged(begin, arrived, is_silent) {
            trial.expect(status == Ok(200), || {
                let what = match status {
                    Ok(status) => format!("responded {status}"),
                    Err(None) => "was refused".to_owned(),
                    Err(Some(error)) => format!("had no response ({error})"),
                };
                format!("{} ms after the stop the liveness {what}", at.as_millis())
            });
        }
        if is_over(arrived, trial.since_stop(), trial.target.grace) {
            return Ok(());
        }
    }
}

/// Longest wait for a response to a probe: the usual timeout of a supervisor.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// A probe that has no response for this long before the process may end, and none afterwards, has
/// failed.
const JUDGED_MIN: Duration = Duration::from_millis(500);

/// The response may be noticed this much later than the end of the process.
const ARRIVAL_MAX: Duration = Duration::from_millis(50);

/// Returns whether a probe that began at `begin` shows something: the process may end with the
/// response, during the last probe. If that was not silent until its timeout, the exit may have
/// ended it.
fn is_judged(begin: Instant, arrived: Option<Instant>, is_silent: bool) -> bool {
    let min = if is_silent { JUDGED_MIN } else { PROBE_MAX };
    arrived.is_none_or(|arrived| arrived.saturating_duration_since(begin) >= min)
}

/// Returns whether no further probe is due: the response has arrived, or the grace period is over.
fn is_over(arrived: Option<Instant>, since_stop: Duration, grace: Duration) -> bool {
    arrived.is_some() || since_stop >= grace
}

#[cfg(test)]
mod tests {
    use super::{is_first, is_judged, is_over};
    use std::time::{Duration, Instant};

    // A server that kept a slow request open and never responded to it was probed without an end.
    #[test]
    fn a_response_that_never_comes_is_awaited_for_the_grace_period() {
        let second = Duration::from_secs(1);
        assert!(!is_over(None, second, 2 * second) && is_over(None, 2 * second, 2 * second));
        assert!(is_over(Some(Instant::now()), second, 2 * second));
    }

    #[test]
    fn a_silent_probe_at_the_end_of_the_process_is_judged_if_it_had_half_a_second() {
        let begin = Instant::now();
        let after = |ms| Some(begin + Duration::from_millis(ms));
        assert!(is_judged(begin, None, true) && is_judged(begin, after(500), true));
        assert!(!is_judged(begin, after(499), true));
        assert!(
            !is_judged(begin + Duration::from_millis(9), Some(begin), true),
            "before the probe"
        );
    }

    // A server whose liveness takes 700 ms was blamed for a probe that its exit had ended.
    #[test]
    fn a_probe_that_the_exit_may_have_ended_is_not_judged() {
        let begin = Instant::now();
        let after = |ms| Some(begin + Duration::from_millis(ms));
        assert!(!is_judged(begin, after(700), false) && is_judged(begin, None, false));
        assert!(is_judged(begin, after(1000), false), "a probe fails after a second");
    }

    #[test]
    fn the_readiness_fails_clearly_before_connects_are_refused() {
        let is_first = |unready: Option<u64>, refused: Option<u64>, lame_duck| {
            let ms = Duration::from_millis;
            is_first(unready.map(ms), refused.map(ms), ms(lame_duck))
        };
        assert!(is_first(Some(2), Some(180), 100) && is_first(Some(2), None, 100));
        assert!(is_first(Some(1), Some(21), 20), "a short lame duck delay");
        assert!(!is_first(Some(180), Some(183), 100) && !is_first(Some(2), Some(4), 100));
        assert!(!is_first(Some(380), Some(181), 100), "the connect whose SYN was dropped");
        assert!(!is_first(None, Some(180), 100) && !is_first(None, None, 100));
    }
}
