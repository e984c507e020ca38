//! Splits the CPU time of the load into user space and kernel, by `perf` (Debian's package
//! `linux-perf`).
//!
//! `/proc` reports the split too, from the kernel's timer ticks. A run has only a hundred or two of
//! them, so a difference of a tenth means nothing. `perf` samples the server 4,000 times a second
//! at almost no cost. Five times that rate would double the measured time.

use crate::{
    Result,
    measure::{Sample, sample},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
    wrk,
};
use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

const LOOKS_PER_SECOND: u32 = 3_999;

/// Returns whether `perf` is installed and permitted.
pub fn works() -> bool {
    let mut trial = Command::new("perf");
    trial.args(["record", "-q", "-e", "cpu-clock", "-o", "/dev/null", "--", "true"]);
    trial.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Samples the server under the load of [`wrk::many`].
pub fn take(peer: &'static Peer, options: &Options) -> Result<Sample> {
    let server = Server::start(peer, &Setup::default())?;
    wrk::run(&server, &[], 1, wrk::MANY, &[])?;
    let data = env::temp_dir().join(format!("lameduck-bench-perf-{}", std::process::id()));
    let processes = server.processes().iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let looks = LOOKS_PER_SECOND.to_string();
    let file = data.display().to_string();
    let wrapper =
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", &looks, "-p", &processes, "-o", &file];
    let run = wrk::run(&server, &wrapper, options.seconds, wrk::MANY, &[]);
    let found = run.and_then(|run| Ok((run, count(&file)?)));
    let _ = std::fs::remove_file(&data);
    let (run, (user, system)) = found?;
    let micros = |looks: u64| looks as f64 / f64::from(LOOKS_PER_SECOND) * 1e6 / run.requests;
    Ok(sample([("user_micros", micros(user)), ("system_micros", micros(system))]))
}

/// Counts the samples in user space and in the kernel.
fn count(file: &str) -> Result<(u64, u64)> {
    let mut script = Command::new("perf")
        .args(["script", "-i", file, "-F", "ip"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("perf (Debian's package `linux-perf`): {error}"))?;
    let (mut user, mut system) = (0, 0);
    for line in script.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        let Ok(address) = u64::from_str_radix(line?.trim(), 16) else { continue };
        // The kernel has the upper half of all addresses.
        if address >> 63 == 0 { user += 1 } else { system += 1 }
    }
    script.wait()?;
    if user + system == 0 {
        return Err("perf saw nothing".into());
    }
    Ok((user, system))
}
