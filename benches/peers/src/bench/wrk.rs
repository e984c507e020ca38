//! Keep-alive connections in a closed loop, by `wrk` (Debian's package of that name).

use crate::{
    Result,
    measure::{Sample, sample},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
};
use std::{env, fs, process::Command};

/// Results of one run.
pub struct Run {
    pub requests: f64,
    pub per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

pub const MANY: usize = 64;

/// 64 connections, each of which sends the next request after the previous response.
pub fn many(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(&start(peer)?, options.seconds, MANY, &[])
}

/// 64 clients through TLS, each with a new connection per request: the cost of a handshake, with
/// the connection and the one request that follow it.
pub fn handshakes(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(&start(peer)?, options.seconds, MANY, &["-H".to_owned(), "Connection: close".to_owned()])
}

/// One connection: the latency of a response without concurrency.
pub fn one(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(&start(peer)?, options.seconds, 1, &[])
}

/// 64 connections, each with 16 pipelined requests.
pub fn pipelined(peer: &'static Peer, options: &Options) -> Result<Sample> {
    let script = env::temp_dir().join(format!("lameduck-bench-{}.lua", std::process::id()));
    fs::write(&script, PIPELINED)?;
    let sample = take(
        &start(peer)?,
        options.seconds,
        MANY,
        &["-s".to_owned(), script.display().to_string()],
    );
    fs::remove_file(script)?;
    sample
}

const PIPELINED: &str = "init = function()
  local one = wrk.format()
  all = string.rep(one, 16)
end
request = function() return all end
";

fn start(peer: &'static Peer) -> Result<Server> {
    Server::start(peer, &Setup::default())
}

/// Takes a sample of a load, after a warm-up.
pub fn take(server: &Server, seconds: u64, connections: usize, more: &[String]) -> Result<Sample> {
    // Warm up allocators, branch predictors and the kernel's buffers.
    run(server, &[], 1, connections, more)?;
    let before = server.cpu()?;
    let run = run(server, &[], seconds, connections, more)?;
    let after = server.cpu()?;
    let (user, system) = (after.user - before.user, after.system - before.system);
    Ok(sample([
        ("cpu_micros", (user + system) * 1e6 / run.requests),
        ("user_micros", user * 1e6 / run.requests),
        ("system_micros", system * 1e6 / run.requests),
        ("per_second", run.per_second),
        ("p50_micros", run.p50_micros),
        ("p99_micros", run.p99_micros),
    ]))
}

/// Returns the capacity of the server: responses a second to 64 clients, on kept connections or on
/// a new one per request.
pub fn capacity(server: &Server, seconds: u64, connections: Connections) -> Result<f64> {
    let more: &[&str] = match connections {
        Connections::Kept => &[],
        Connections::New => &["-H", "Connection: close"],
    };
    Ok(run(
        server,
        &[],
        seconds,
        MANY,
        &more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
    )?
    .per_second)
}

/// How a request uses connections.
#[derive(Clone, Copy, Debug)]
pub enum Connections {
    Kept,
    New,
}

/// Runs `wrk`, under `wrapper` if it is not empty.
pub fn run(
    server: &Server,
    wrapper: &[&str],
    seconds: u64,
    connections: usize,
    more: &[String],
) -> Result<Run> {
    let mut words = wrapper.iter().chain(&["wrk"]);
    let mut command = Command::new(words.next().unwrap_or(&"wrk"));
    command
        .args(words)
        .args(["-t1", "-c", &connections.to_string(), "--latency", "-d", &format!("{seconds}s")])
        .args(more);
    let output = command.arg(server.url("/")).output();
    let output = output.map_err(|error| {
        format!(
            "{} (Debian's package `wrk`, and `linux-perf`): {error}",
            wrapper.first().unwrap_or(&"wrk")
        )
    })?;
    let text = String::from_utf8(output.stdout)?;
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(format!("wrk met errors:\n{text}").into());
    }
    let word = |line: &str, index: usize| {
        let line = text.lines().find(|text| text.contains(line))?;
        line.split_whitespace().nth(index)
    };
    let missing = || format!("wrk said:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(Run {
        requests: word("requests in", 0).ok_or_else(missing)?.parse()?,
        per_second: word("Requests/sec", 1).ok_or_else(missing)?.parse()?,
        p50_micros: word(" 50% ", 1).and_then(micros).ok_or_else(missing)?,
        p99_micros: word(" 99% ", 1).and_then(micros).ok_or_else(missing)?,
    })
}

/// Parses `12.34us`, `1.20ms` or `0.91s` as microseconds.
fn micros(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic())?);
    let unit = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}
