//! The exit of the process, and the clients that might hold it.

use crate::{
    probe::upgrade_request,
    process::Exit,
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, Trial, get, route},
};
use lameduck_wire::http1::Client;
use std::{thread, time::Duration};

const MUST: Weight = Weight::Always(Grade::Must);
const RULE: &str = "Kubernetes, systemd, docker: SIGKILL follows after the grace period";
const REPAIR: &str = "Give the drain a limit, and close what is left when it is reached.";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "exit/code",
        weight: Weight::Always(Grade::Should),
        needs: &[],
        does: "Serves a request, requests the stop, and checks the exit code.",
        why: "A restart that loses nothing should not look like a crash. A process without a \
              signal handler is killed by the signal.",
        rule: "Kubernetes reports every end but exit code 0 as an error; systemd accepts SIGTERM, \
               SIGINT, SIGHUP and SIGPIPE, too, and no other exit code",
        repair: "Handle the signal, and return from main.",
        play: code,
    },
    Scenario {
        name: "exit/idle",
        weight: MUST,
        needs: &[],
        does: "Holds idle connections, and waits for the exit.",
        why: "Pools and browsers hold idle connections for minutes. A server that waits for them \
              is killed, and its clean-up never runs.",
        rule: RULE,
        repair: "Close idle connections at the stop.",
        play: idle,
    },
    Scenario {
        name: "exit/silent",
        weight: MUST,
        needs: &[],
        does: "Holds connections that never send a byte or only half a head, and waits for the \
               exit.",
        why: "A port scanner or a client that has lost its network must not decide when the \
              process exits.",
        rule: RULE,
        repair: "Give the first byte and the head a time limit.",
        play: silent,
    },
    Scenario {
        name: "exit/request",
        weight: MUST,
        needs: &[Need::Slow],
        does: "Requests a response that takes longer than the grace period, and waits for the \
               exit.",
        why: "One stuck request must not prevent the whole clean-up.",
        rule: RULE,
        repair: REPAIR,
        play: request,
    },
    Scenario {
        name: "exit/upload",
        weight: MUST,
        needs: &[Need::Echo],
        does: "Sends half of a body and then nothing, and waits for the exit.",
        why: "An upload from a phone that has left the network never ends.",
        rule: RULE,
        repair: REPAIR,
        play: upload,
    },
    Scenario {
        name: "exit/reader",
        weight: MUST,
        needs: &[Need::Big],
        does: "Requests 50 MB without reading, and waits for the exit.",
        why: "A client that does not read must not hold the process.",
        rule: RULE,
        repair: REPAIR,
        play: reader,
    },
    Scenario {
        name: "exit/upgraded",
        weight: MUST,
        needs: &[Need::Upgrade],
        does: "Holds an upgraded connection, and waits for the exit.",
        why: "A WebSocket does not end by a timeout. Many servers forget upgraded connections, or \
              wait for them for ever.",
        rule: RULE,
        repair: "Notify upgraded connections of the stop, and close them after a limit.",
        play: upgraded,
    },
    Scenario {
        name: "exit/http2",
        weight: MUST,
        needs: &[Need::Http2],
        does: "Holds HTTP/2 connections whose client ignores the GOAWAY and acknowledges no PING, \
               and waits for the exit.",
        why: "A client may keep its connection after a GOAWAY without a time limit.",
        rule: RULE,
        repair: "Close an HTTP/2 connection without streams after its GOAWAY.",
        play: http2,
    },
    Scenario {
        name: "exit/descriptors",
        weight: MUST,
        needs: &[Need::Limits],
        does: "Lowers the limit of the server's descriptors to a few more than it has, opens more \
               connections than that, requests the stop, and waits for the exit.",
        why: "A leak or a burst of clients uses up the descriptors, and accept fails with EMFILE \
              again and again. That is when a server is restarted, and it must still stop.",
        rule: RULE,
        repair: "Pause after a failed accept, and check for the stop request meanwhile.",
        play: descriptors,
    },
];

fn code(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let _ = trial.connect("before the stop")?.request(&path);
    trial.stop()?;
    let exit = trial.exit()?;
    trial.expect(matches!(exit, Some((Exit::Code(0), _))), || match exit {
        Some((exit, _)) => exit.to_string(),
        None => "it did not exit".to_owned(),
    });
    if let Some((_, took)) = exit {
        trial.measure("exit", took);
    }
    Ok(())
}

fn idle(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let mut clients = Vec::new();
    for n in 0..5 {
        let mut client = trial.connect(&format!("idle {n}"))?;
        let _ = client.request(&path);
        clients.push(client);
    }
    trial.stop()?;
    trial.expect_exit("idle connections")?;
    Ok(())
}

fn silent(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let mut clients = Vec::new();
    for n in 0..3 {
        clients.push(trial.connect(&format!("silent {n}"))?);
    }
    for n in 0..2 {
        let mut client = trial.connect(&format!("half a head {n}"))?;
        client.send("GET / HTTP/1.1\r\nhost: ")?;
        clients.push(client);
    }
    thread::sleep(Duration::from_millis(30));
    trial.stop()?;
    trial.expect_exit("connections without a request")?;
    Ok(())
}

fn request(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let twice = u64::try_from((2 * trial.target.grace).as_millis()).unwrap_or(u64::MAX);
    let path = route(trial.target.paths.slow.as_deref().unwrap_or_default(), twice + 10_000);
    let mut client = trial.connect("slow")?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(100));
    trial.stop()?;
    trial.expect_exit("a request that takes long")?;
    Ok(())
}

fn upload(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.echo.clone().unwrap_or_default();
    let mut client = trial.connect("upload")?;
    client.send(format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nhalf"
    ))?;
    thread::sleep(Duration::from_millis(50));
    trial.stop()?;
    trial.expect_exit("an upload that stands still")?;
    Ok(())
}

fn reader(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = route(trial.target.paths.big.as_deref().unwrap_or_default(), 50_000_000);
    let mut client = trial.connect("does not read")?;
    client.set_receive_buffer(64 * 1024)?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(100));
    trial.stop()?;
    trial.expect_exit("a client that does not read")?;
    Ok(())
}

fn upgraded(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.upgrade.clone().unwrap_or_default();
    let mut client = trial.connect("upgraded")?;
    client.send(upgrade_request(&path))?;
    let head = client.head().map_err(|end| Abort::Broken(format!("no upgrade: {end}")))?;
    if head.status != 101 {
        return Err(Abort::Broken(format!("no upgrade: status {}", head.status)));
    }
    trial.stop()?;
    trial.expect_exit("an upgraded connection")?;
    Ok(())
}

fn http2(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let mut clients = Vec::new();
    for n in 0..3 {
        clients.push(trial.keep_http2(&format!("HTTP/2 {n}"))?);
    }
    trial.stop()?;
    trial.expect_exit("HTTP/2 connections")?;
    Ok(())
}

/// Descriptors that the server may still open.
const SPARE: u64 = 6;

fn descriptors(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    trial.server()?.process.limit_descriptors(SPARE)?;
    let opened = open_all(trial);
    thread::sleep(Duration::from_millis(100));
    if let Some((exit, _)) = trial.server()?.process.exit() {
        trial
            .expect(false, || format!("it ended before the stop, for lack of descriptors: {exit}"));
        return Ok(());
    }
    let clients = opened?;
    trial.stop()?;
    trial.expect_exit("a lack of descriptors")?;
    drop(clients);
    Ok(())
}

/// Opens more connections than the server may accept, and sends a request on each.
fn open_all(trial: &mut Trial<'_>) -> Result<Vec<Client>, Abort> {
    let path = trial.target.paths.plain.clone();
    let mut clients = Vec::new();
    for n in 0..2 * SPARE {
        let mut client = trial.connect(&format!("connection {n}"))?;
        client.send(get(&path))?;
        clients.push(client);
    }
    Ok(clients)
}
