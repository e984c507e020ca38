//! Whose the CPU time of the load is, the server's own or the kernel's on its behalf, by `perf` (Debian's package `linux-perf`).
//!
//! `/proc` tells it too, by which of the two a tick of the kernel's found: a hundred or two of them in a run, so that a tenth more or
//! less means nothing. Here the server is looked at 4,000 times a second, which costs it next to nothing; five times as often would
//! double what it measures.

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

/// Whether it is installed and may look.
pub fn works() -> bool {
    let mut trial = Command::new("perf");
    trial.args(["record", "-q", "-e", "cpu-clock", "-o", "/dev/null", "--", "true"]);
    trial.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// As the load is made by [`wrk::many`].
pub fn take(peer: &'static Peer, options: &Options) -> Result<Sample> {
    let server = Server::start(peer, &Setup::default())?;
    wrk::run(&server, &[], 1, wrk::MANY, &[])?;
    let data = env::temp_dir().join(format!("lameduck-bench-perf-{}", std::process::id()));
    let processes = server.processes().iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let looks = LOOKS_PER_SECOND.to_string();
    let file = data.display().to_string();
    let wrapper = ["perf", "record", "-q", "-e", "cpu-clock", "-F", &looks, "-p", &processes, "-o", &file];
    let run = wrk::run(&server, &wrapper, options.seconds, wrk::MANY, &[]);
    let found = run.and_then(|run| Ok((run, count(&file)?)));
    let _ = std::fs::remove_file(&data);
    let (run, (user, system)) = found?;
    let micros = |looks: u64| looks as f64 / f64::from(LOOKS_PER_SECOND) * 1e6 / run.requests;
    Ok(sample([("user_micros", micros(user)), ("system_micros", micros(system))]))
}

/// How often the server was found in its own code, and in the kernel.
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
        // The upper half of all addresses is the kernel's.
        if address >> 63 == 0 { user += 1 } else { system += 1 }
    }
    script.wait()?;
    if user + system == 0 {
        return Err("perf saw nothing".into());
    }
    Ok((user, system))
}
