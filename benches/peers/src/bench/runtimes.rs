//! A single-threaded runtime per worker, by `lameduck::run`, and tokio's multi-threaded runtime, by
//! `Host::run` and `axum::serve`. Each server has two cores and two workers; the load shares one of
//! the cores.

use crate::{
    Result, h2load,
    measure::{Sample, percentile, sample},
    open_loop::OpenLoop,
    options::Options,
    peer::Peer,
    server::{Server, Setup},
    wrk,
};
use std::time::Duration;

/// Requests a second of the open loops. The computing ones of `skewed` use 0.4 of a core.
const RATE: f64 = 2_000.0;

/// One in this many requests computes.
const COMPUTES: u64 = 100;

const COMPUTE: &[u8] = b"GET /compute HTTP/1.1\r\nhost: bench\r\n\r\n";
const BLOCK: &[u8] = b"GET /block HTTP/1.1\r\nhost: bench\r\n\r\n";

/// A latency that clients notice.
const SLOW_MICROS: f64 = 100_000.0;

pub fn suits(peer: &Peer) -> bool {
    ["lameduck_axum", "lameduck_tokio", "axum"].contains(&peer.name)
}

/// The same cost for each request, on 64 connections.
pub fn uniform(peer: &'static Peer, options: &Options) -> Result<Sample> {
    wrk::take(&start(peer, false)?, options.seconds, wrk::MANY, &[])
}

/// HTTP/2: two connections, which may be on one worker.
pub fn few(peer: &'static Peer, options: &Options) -> Result<Sample> {
    h2load::take(&start(peer, true)?, options.seconds, "/", &["-c2"])
}

/// One request in a hundred computes for 20 ms: the latency of the others.
pub fn skewed(peer: &'static Peer, options: &Options) -> Result<Sample> {
    latency(peer, options, COMPUTES, COMPUTE)
}

/// The first request blocks its thread for a second: the latency of the others.
pub fn blocked(peer: &'static Peer, options: &Options) -> Result<Sample> {
    latency(peer, options, u64::MAX, BLOCK)
}

fn latency(
    peer: &'static Peer,
    options: &Options,
    every: u64,
    other: &'static [u8],
) -> Result<Sample> {
    let server = start(peer, false)?;
    let mut clients = OpenLoop::new(server.address, &server.exit)?;
    clients.run(RATE, Duration::from_millis(500))?;
    let begin = std::time::Instant::now();
    clients.mix(every, other);
    clients.run(RATE, Duration::from_secs(options.seconds))?;
    let record = clients.finish()?;
    let times: Vec<f64> = record
        .responses
        .iter()
        .filter(|(at, _)| *at >= begin)
        .map(|(_, took)| took.as_secs_f64() * 1e6)
        .collect();
    let slow = times.iter().filter(|micros| **micros > SLOW_MICROS).count();
    Ok(sample([
        ("p50_micros", percentile(&times, 0.5)),
        ("p99_micros", percentile(&times, 0.99)),
        ("slow_percent", slow as f64 / times.len().max(1) as f64 * 100.0),
    ]))
}

fn start(peer: &'static Peer, http2: bool) -> Result<Server> {
    Server::start(peer, &Setup { http2, both_cores: true, ..Setup::default() })
}
