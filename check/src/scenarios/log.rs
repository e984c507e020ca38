//! A log that nothing reads any more.

use crate::{
    process::Output,
    scenario::{Grade, Need, Scenario, Weight},
    server::Plan,
    trial::{Abort, Trial, get},
};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    time::Duration,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "log/stuck-serves",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::LogPipe],
        does: "Fills the pipe of the server's output, which nothing reads, and sends requests.",
        why: "A log collector that is stuck blocks every write to standard output, and with it \
              the handler that logs.",
        rule: "pipe(7): a write to a full pipe blocks",
        repair: "Log from a separate thread, and drop lines when it cannot keep up.",
        play: stuck_serves,
    },
    Scenario {
        name: "log/stuck-exits",
        weight: Weight::Always(Grade::Must),
        needs: &[Need::LogPipe],
        does: "Fills the pipe of the server's output, which nothing reads, requests the stop, and \
               waits for the exit.",
        why: "Many servers begin a shutdown by logging it, and that write blocks.",
        rule: "pipe(7): a write to a full pipe blocks; SIGKILL follows after the grace period",
        repair: "Log from a separate thread, and do not wait for it at the exit.",
        play: stuck_exits,
    },
    Scenario {
        name: "log/dead",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::LogPipe],
        does: "Closes the reading end of the pipe of the server's output, and sends requests.",
        why: "When the log collector has crashed, a write fails with EPIPE, or SIGPIPE kills the \
              process.",
        rule: "pipe(7): EPIPE and SIGPIPE",
        repair: "Ignore SIGPIPE and errors of the log.",
        play: dead,
    },
];

/// Starts the server with a pipe as its output, which is read until the server has settled. Returns
/// the end that should be read, and another end to write to.
fn start(trial: &mut Trial<'_>) -> Result<(io::PipeReader, io::PipeWriter), Abort> {
    let (reader, writer) = io::pipe()?;
    let plan = Plan::new(trial.target)?;
    let command = plan.command(trial.target);
    let output = Output::Pipe(reader.try_clone()?, writer.try_clone()?);
    trial.start_by(&plan, command, output)?;
    trial.server()?.process.stop_reading();
    Ok((reader, writer))
}

/// Fills the pipe. Opens its end again first: the server shares the flags of the first one.
fn fill(writer: &io::PipeWriter) -> io::Result<()> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    let mut again = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(nonblocking).unwrap_or(0))
        .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))?;
    for length in [4096, 64, 1] {
        while again.write(&vec![b'.'; length]).is_ok() {}
    }
    Ok(())
}

const REQUESTS: usize = 3;
/// A handler that waits for the log waits for ever.
const MAX_WAIT: Duration = Duration::from_secs(3);

fn expect_requests(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let path = trial.target.paths.plain.clone();
    for n in 0..REQUESTS {
        let label = format!("request {n}");
        let mut client = trial.connect(&label)?;
        client.set_max_wait(MAX_WAIT);
        let _ = client.send(get(&path));
        let response = client.response();
        trial.expect_response(&label, &response);
    }
    Ok(())
}

fn stuck_serves(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let (reader, writer) = start(trial)?;
    fill(&writer)?;
    let served = expect_requests(trial);
    drop(reader);
    served
}

fn stuck_exits(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let (reader, writer) = start(trial)?;
    fill(&writer)?;
    trial.stop()?;
    trial.expect_exit("a log that is not read")?;
    drop(reader);
    Ok(())
}

fn dead(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let (reader, writer) = start(trial)?;
    drop((reader, writer));
    // Those that find the process gone.
    if let Err(Abort::Broken(why)) = expect_requests(trial) {
        trial.expect(false, || why);
    }
    trial.stop_if_alive();
    trial.expect_exit("a log whose reader is gone")?;
    Ok(())
}
