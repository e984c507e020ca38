//! HTTP/2 with many streams, by `h2load` (Debian's package `nghttp2-client`): 32 streams on each
//! connection, prior knowledge.

use crate::{
    Result,
    measure::{Sample, sample},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
};
use std::process::Command;

pub fn streams(peer: &'static Peer, options: &Options) -> Result<Sample> {
    let server = Server::start(peer, &Setup { http2: true, ..Setup::default() })?;
    take(&server, options.seconds, "/", &[MANY])
}

/// 8 connections.
pub const MANY: &str = "-c8";

/// Takes a sample of a load, after a warm-up.
pub fn take(server: &Server, seconds: u64, path: &str, more: &[&str]) -> Result<Sample> {
    run(server, 1, path, more)?;
    let before = server.cpu()?;
    let (requests, per_second) = run(server, seconds, path, more)?;
    let after = server.cpu()?;
    let cpu = after.user - before.user + after.system - before.system;
    Ok(sample([("cpu_micros", cpu * 1e6 / requests), ("per_second", per_second)]))
}

fn run(server: &Server, seconds: u64, path: &str, more: &[&str]) -> Result<(f64, f64)> {
    let mut command = Command::new("h2load");
    command.args(["-t1", "-m32", "-D", &seconds.to_string()]).args(more).arg(server.url(path));
    let output = command
        .output()
        .map_err(|error| format!("h2load (Debian's package `nghttp2-client`): {error}"))?;
    let text = String::from_utf8(output.stdout)?;
    // requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout
    let line = text.lines().find_map(|line| line.strip_prefix("requests: ")).unwrap_or_default();
    let count = |what: &str| {
        line.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse::<f64>().ok())
    };
    match (count("succeeded"), count("failed"), count("errored")) {
        (Some(requests), Some(0.0), Some(0.0)) if requests > 0.0 => {
            Ok((requests, requests / seconds as f64))
        }
        _ => {
            Err(format!("h2load met errors:\n{text}{}", String::from_utf8_lossy(&output.stderr))
                .into())
        }
    }
}
