//! The time between the stop request and the close of the listener.

use crate::{
    scenario::{Need, Scenario, Weight},
    trial::{Abort, Trial, get, is_served, outcome},
};
use lameduck_wire::{End, http1::Client};
use std::{io::ErrorKind, thread, time::Duration};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lame-duck/new-connection",
        weight: Weight::LameDuck,
        needs: &[],
        does: "Opens a new connection every few milliseconds after the stop, for the time of \
               --lame-duck, and sends a request on each.",
        why: "Balancers and kube-proxies learn of the stop later than the process. What they send \
              meanwhile is refused if the listener closes at once.",
        rule: "Kubernetes: endpoints are removed in parallel with SIGTERM, not before it",
        repair: "After the stop request keep serving for some seconds, then close the listener. \
                 A preStop sleep does it from outside.",
        play: new_connection,
    },
    Scenario {
        name: "lame-duck/kept-connection",
        weight: Weight::LameDuck,
        needs: &[Need::KeepAlive],
        does: "Sends a request on each of several idle connections, 20 ms after the stop, or after \
               half of a shorter --lame-duck.",
        why: "A proxy sends the next request on a connection that it keeps. If the server has \
              just closed it, the request is lost, or sent twice.",
        rule: "RFC 9112 §9.5: a client cannot know that the server is closing an idle connection",
        repair: "Keep idle connections open after the stop, and announce the close with the next \
                 response.",
        play: kept_connection,
    },
    Scenario {
        name: "lame-duck/announced-close",
        weight: Weight::LameDuck,
        needs: &[Need::KeepAlive],
        does: "Sends requests on kept connections after the stop, until each closes, and looks \
               for `Connection: close` in the last response.",
        why: "A client that sees the announcement uses another connection for its next request, so \
              nothing races with the close.",
        rule: "RFC 9112 §9.6: a server that will close sends the close option in its last response",
        repair: "After the stop add `Connection: close` to every response.",
        play: announced_close,
    },
];

fn new_connection(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    trial.stop()?;
    let window = trial.target.lame_duck;
    let path = trial.target.paths.plain.clone();
    let mut number = 0;
    loop {
        let begun = trial.since_stop();
        if begun >= window {
            return if trial.findings.tries > 0 { Ok(()) } else { Err(too_late()) };
        }
        number += 1;
        let label = format!("{} ms after the stop", begun.as_millis());
        let track = trial.recorder.track(&label);
        let connected = trial.try_connect(track)?.map(|mut client| {
            let _ = client.send(get(&path));
            client
        });
        let sent = trial.since_stop();
        let response = match connected {
            Ok(mut client) => client.response(),
            Err(error) => Err(End::Failed(error.kind())),
        };
        // A slow machine is not the server's fault. What becomes of the request later is.
        if is_served(&response) || sent < window {
            trial.expect(is_served(&response), || match response {
                Err(End::Failed(ErrorKind::ConnectionRefused)) => {
                    format!("{label}: the connection was refused")
                }
                _ => format!("{label}: {}", outcome(&response)),
            });
        }
        thread::sleep(Duration::from_millis(10 * number));
    }
}

const KEPT: usize = 4;

fn kept_connection(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let mut clients = trial.keep_all(KEPT)?;
    trial.stop()?;
    trial.wait_until(trial.early(Duration::from_millis(20)));
    send_in_time(trial, &mut clients, &get(&path))?;
    for (mut client, label) in clients {
        let response = client.response();
        trial.expect_response(&label, &response);
    }
    Ok(())
}

/// Sends a request on each connection in the lame duck delay.
///
/// # Errors
/// If the delay was over before the last one: the server may have closed the connections.
pub(super) fn send_in_time(
    trial: &Trial<'_>,
    clients: &mut [(Client, String)],
    request: &str,
) -> Result<(), Abort> {
    for (client, _) in clients {
        let _ = client.send(request);
    }
    if trial.since_stop() < trial.target.lame_duck { Ok(()) } else { Err(too_late()) }
}

fn too_late() -> Abort {
    Abort::Broken(
        "--lame-duck was over before the requests were sent: the machine is busy".to_owned(),
    )
}

/// The close of a long lame duck is not waited for.
const CLOSE_MAX: Duration = Duration::from_secs(10);

fn announced_close(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let mut clients = trial.keep_all(KEPT)?;
    trial.stop()?;
    let most = trial.target.grace.min(CLOSE_MAX);
    let pause = Duration::from_millis(25);
    trial.wait_until(trial.early(pause));
    send_in_time(trial, &mut clients, &get(&path))?;
    while !clients.is_empty() && trial.since_stop() < most {
        let mut open = Vec::new();
        for (mut client, label) in clients {
            match client.response() {
                Ok(response) if response.says_close() => trial.expect(true, String::new),
                Ok(_) => open.push((client, label)),
                Err(end) => trial.expect(false, || {
                    format!("{label}: {end}, and no response since the stop had announced it")
                }),
            }
        }
        clients = open;
        thread::sleep(pause);
        for (client, _) in &mut clients {
            let _ = client.send(get(&path));
        }
    }
    // Those that are still open were not closed without an announcement.
    clients.iter().for_each(|_| trial.expect(true, String::new));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::send_in_time;
    use crate::{
        target::Target,
        trial::{Abort, Trial},
    };
    use std::time::Duration;

    // A server was blamed for the connections that it had closed after its delay, when a busy
    // machine had sent the requests too late.
    #[test]
    fn requests_that_are_sent_after_the_delay_are_not_judged() {
        let mut target = Target::new(vec!["server".to_owned()]);
        for (lame_duck, is_late) in [(Duration::from_secs(1), false), (Duration::ZERO, true)] {
            target.lame_duck = lame_duck;
            let sent = send_in_time(&Trial::new(&target, 1), &mut [], "");
            assert_eq!(matches!(sent, Err(Abort::Broken(_))), is_late);
        }
    }
}
