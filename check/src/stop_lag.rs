//! How long a stop command takes until it has asked the server to stop. What a scenario does before
//! that moment meets a server that serves as before.

use crate::{
    server::{Server, status_within},
    target::{Stop, Target},
    trial::SETTLE,
};
use lameduck_wire::{End, connection::is_refused, http1::Client};
use std::{
    thread,
    time::{Duration, Instant},
};

/// A busy machine may show the stop late.
const TRIES: u32 = 3;
/// Pause between two looks at a server.
const POLL: Duration = Duration::from_millis(2);
/// Longest wait for a response.
const RESPONSE_MAX: Duration = Duration::from_secs(1);

/// Checks that a time is given for a stop command, or for none.
///
/// # Errors
/// If the stop is no command.
pub fn expect(target: &Target, given: Option<Duration>) -> Result<(), String> {
    if given.is_some() && !matches!(target.stop, Stop::Command(_)) {
        return Err("--stop-takes: only a command of --stop takes time".to_owned());
    }
    Ok(())
}

/// Returns the time that was given, or measures it.
///
/// # Errors
/// If the server does not start, the command fails, or the server shows no stop in the first half
/// of the lame duck delay: one that serves on without a sign cannot be distinguished from one that
/// is not yet asked to stop.
pub fn of(target: &Target, given: Option<Duration>) -> Result<Duration, String> {
    match (&target.stop, given) {
        (Stop::Signal(_) | Stop::Post(_), _) => Ok(Duration::ZERO),
        (Stop::Command(_), Some(given)) => Ok(given),
        (Stop::Command(_), None) => measure(target),
    }
}

fn measure(target: &Target) -> Result<Duration, String> {
    for _ in 0..TRIES {
        let mut server = Server::start(target)?;
        thread::sleep(SETTLE);
        server.expect_running()?;
        if let Some(lag) = first_sign(&mut server, target)? {
            return Ok(lag);
        }
    }
    Err(format!(
        "--stop cmd: no sign of the stop within {:?}, half of --lame-duck, after the start of the \
         command; give the time after which it has asked the server to stop by --stop-takes",
        target.lame_duck / 2
    ))
}

/// Returns the time from the start of the stop command to the first sign of the stop.
fn first_sign(server: &mut Server, target: &Target) -> Result<Option<Duration>, String> {
    let path = &target.paths.plain;
    let mut kept = (!target.tls).then(|| kept(server, path)).flatten();
    let begin = Instant::now();
    server.stop(&target.stop)?;
    loop {
        // What has failed is found by each scenario.
        let is_seen = shows_stop(server, kept.as_mut(), path) || server.judge_stop().is_err();
        let at = begin.elapsed();
        if is_seen || at > target.lame_duck / 2 {
            return Ok(Some(at).filter(|at| *at <= target.lame_duck / 2));
        }
        thread::sleep(POLL);
    }
}

/// Returns a connection that the server keeps after a response.
fn kept(server: &Server, path: &str) -> Option<Client> {
    let mut client = Client::connect(server.address, RESPONSE_MAX).ok()?;
    let response = client.request(path).ok()?;
    (!response.says_close()).then_some(client)
}

/// Returns whether the server stops: it has ended, refuses a connection, is not ready, or closes a
/// kept connection or announces that.
fn shows_stop(server: &mut Server, kept: Option<&mut Client>, path: &str) -> bool {
    let is_unready = |status| matches!(status, Ok(..=199 | 201..) | Err(None));
    let closes = |client: &mut Client| match client.request(path) {
        Ok(response) => response.says_close() || response.status != 200,
        Err(end) => end != End::Silent,
    };
    server.process.exit().is_some()
        || is_refused(server.address)
        || server.ready.as_ref().is_some_and(|url| is_unready(status_within(url, RESPONSE_MAX)))
        || kept.is_some_and(closes)
}
