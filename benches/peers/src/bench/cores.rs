//! Two cores, one for the measured server and one for the measuring clients, and the noise of other
//! processes on them.

use crate::{Result, measure::median_of};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::{
    fs, hint,
    time::{Duration, Instant},
};

/// Core of the measured server; the clients have the other.
pub const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

/// Ticks per second of a process's CPU times. Linux always uses this number here.
pub const TICKS: f64 = 100.0;

/// Runs this thread, and the processes that it starts, on the client's core.
pub fn pin_client() -> Result<()> {
    pin(&[CLIENT_CORE])
}

/// Runs `start` on the server's core. The processes that it starts stay there.
pub fn on_server_core<T>(start: impl FnOnce() -> T) -> Result<T> {
    on(&[SERVER_CORE], start)
}

/// Runs `start` on both cores, of which the clients share one.
pub fn on_both_cores<T>(start: impl FnOnce() -> T) -> Result<T> {
    on(&[SERVER_CORE, CLIENT_CORE], start)
}

fn on<T>(cores: &[usize], start: impl FnOnce() -> T) -> Result<T> {
    pin(cores)?;
    let started = start();
    pin_client()?;
    Ok(started)
}

fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set)
        .map_err(|error| format!("the bench needs two cores; no cores {cores:?}: {error}").into())
}

/// How noisy the machine is: the same arithmetic, timed repeatedly on the server's core, and the
/// time that the host of a virtual machine stole.
pub struct Noise {
    spins: Vec<f64>,
    stolen: f64,
    began: Instant,
}

impl Noise {
    pub fn listen() -> Self {
        Self { spins: Vec::new(), stolen: stolen(), began: Instant::now() }
    }

    /// Takes another sample.
    pub fn peek(&mut self) -> Result<()> {
        self.spins.push(on_server_core(spin)?.as_secs_f64() * 1e3);
        Ok(())
    }

    /// Returns the median spin in milliseconds, how far the slowest spin and the 90th percentile
    /// exceed it, and the fraction of time that was stolen.
    pub fn summary(&self) -> serde_json::Value {
        let mut spins = self.spins.clone();
        spins.sort_by(f64::total_cmp);
        let middle = median_of(&spins);
        let above = |spin: Option<&f64>| spin.map_or(0.0, |spin| spin / middle - 1.0);
        serde_json::json!({
            "spin_millis": middle,
            "spins": self.spins.len(),
            "slowest_above": above(spins.last()),
            "ninetieth_above": above(spins.get(spins.len() * 9 / 10)),
            "stolen": (stolen() - self.stolen) / self.began.elapsed().as_secs_f64(),
            "seconds": self.began.elapsed().as_secs_f64(),
        })
    }
}

/// Runs about 20 ms of arithmetic.
fn spin() -> Duration {
    let began = Instant::now();
    let mut word = 1_u64;
    for _ in 0..20_000_000 {
        word = hint::black_box(word).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    began.elapsed()
}

/// Returns the seconds stolen from all cores since the machine booted.
fn stolen() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks =
        stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<f64>().ok());
    ticks.unwrap_or(0.0) / TICKS
}
