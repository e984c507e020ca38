//! Connections that the kernel has accepted and the server has not.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, CONNECT_MAX, Trial, is_served, outcome},
};
use lameduck_wire::http1::Client;
use std::{thread, time::Duration};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "accept/backlog",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::StopSignal],
        does: "Freezes the process, opens connections and sends a request on each, requests the \
               stop, and continues the process.",
        why: "The kernel completes handshakes before the server accepts. A server that closes its \
              listener first resets all connections in the queue: each is a request that the \
              client may not repeat.",
        rule: "listen(2): closing the socket resets its queue; RFC 9110 §9.2.2 on what may be \
               repeated",
        repair: "Accept until the queue is empty, then close the listener.",
        play: backlog,
    },
    Scenario {
        name: "accept/at-close",
        weight: Weight::Always(Grade::Should),
        needs: &[],
        does: "Clients open a connection for every request, from before the stop until the first \
               connect is refused.",
        why: "A refused connect is harmless: the client goes elsewhere. A connection that was \
              accepted and then reset is a lost request.",
        rule: "RFC 9110 §9.2.2: only idempotent requests may be repeated after a failure",
        repair: "Keep accepting for a while after the stop; when the listener closes, serve what \
                 its queue holds.",
        play: at_close,
    },
];

/// Python's servers have a queue of five.
const QUEUED: usize = 5;

fn backlog(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    trial.freeze()?;
    let path = trial.target.paths.plain.clone();
    let mut clients = Vec::new();
    for n in 0..QUEUED {
        let label = format!("queued {n}");
        let mut client = trial.connect(&label)?;
        client.send(crate::trial::get(&path))?;
        clients.push((label, client));
    }
    trial.stop()?;
    trial.thaw()?;
    for (label, mut client) in clients {
        let response = client.response();
        trial.expect_response(&label, &response);
    }
    Ok(())
}

const CLIENTS: usize = 3;
/// The listener of a long lame duck is not waited for.
const CLOSE_MAX: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(4);

fn at_close(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let address = trial.server()?.address;
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        trial.target.paths.plain
    );
    let recorder = trial.recorder.clone();
    let recorder = &recorder;
    let warm_up = Duration::from_millis(30 + trial.drawn(1, 20));
    let most = warm_up + trial.target.stop_takes + trial.target.grace.min(CLOSE_MAX);
    let (max_wait, deadline) = (trial.max_wait(), trial.last_moment());
    let client = |number: usize| {
        let begin = recorder.now();
        let mut lost = Vec::new();
        let mut served = 0_u64;
        while recorder.now() - begin < most {
            let label = format!("client {number}, request {}", served + 1);
            let track = recorder.track_alone(&label);
            let Ok(mut client) = Client::connect_tracked(address, CONNECT_MAX, track.clone())
            else {
                break;
            };
            client.set_max_wait(max_wait);
            client.set_deadline(deadline);
            let _ = client.send(&request);
            let response = client.response();
            if is_served(&response) {
                served += 1;
            } else {
                recorder.keep(track);
                lost.push(format!("{label}: {}", outcome(&response)));
            }
            thread::sleep(PAUSE);
        }
        (served, lost)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || client(n))).collect();
        thread::sleep(warm_up);
        let stopped = trial.stop();
        for client in clients {
            let Ok((served, lost)) = client.join() else {
                return Err(Abort::Broken("a client panicked".to_owned()));
            };
            trial.findings.tries += served;
            for story in lost {
                trial.expect(false, || story);
            }
        }
        stopped
    })
}
