//! Resident memory of idle connections.

use crate::{Result, callgrind::Process, client::Client, load::LOADS, serve::Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{env, fs, io, process::Command, thread, time::Duration};

pub(crate) const NAME: &str = "idle_bytes";

/// Enough that a page of memory more or less is no difference.
const CONNECTIONS: usize = 4_000;
/// Connections that are opened before, and the descriptors of the process.
const FIRST: usize = 100;
/// An idle connection keeps its task for a second.
const IDLE: Duration = Duration::from_millis(2_500);

/// Returns the bytes of an idle connection, which was served once.
pub(crate) fn bytes() -> Result<f64> {
    allow_descriptors()?;
    let process = Process::start(&mut Command::new(env::current_exe()?), Server::Lameduck)?;
    let served_once = || {
        let mut client = Client::connect(process.address, &LOADS[0])?;
        client.send()?;
        client.receive().map(|()| client)
    };
    // What the first connections set up once does not count.
    let first = (0..FIRST).map(|_| served_once()).collect::<io::Result<Vec<_>>>()?;
    thread::sleep(IDLE);
    let before = resident(process.id())?;
    let clients = (0..CONNECTIONS).map(|_| served_once()).collect::<io::Result<Vec<_>>>()?;
    thread::sleep(IDLE);
    let bytes = (resident(process.id())? - before) / clients.len() as f64;
    drop((first, clients));
    process.stop()?;
    Ok(bytes)
}

/// Lets this process and the server have as many descriptors as they need.
fn allow_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (CONNECTIONS + 2 * FIRST) as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    if limit.maximum.is_some_and(|most| most < wanted) {
        return Err(format!("at least {wanted} descriptors are needed: ulimit -Hn").into());
    }
    Ok(())
}

fn resident(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.ok_or("no VmRSS")?.parse::<f64>()? * 1024.0)
}
