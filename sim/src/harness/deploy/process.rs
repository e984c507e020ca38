//! One process of a deploy, from its start until it has no more effect on the world.

use crate::{client, network::TurmoilNetHost, trace::Trace};
use lameduck::runtime::Seed;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What a program gets when it is started.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// Its name, which is its actor in the trace.
    pub(super) name: String,
    pub(super) host: TurmoilNetHost,
    pub(super) trace: Trace,
    pub(super) seed: Seed,
    /// Cancelled by SIGTERM.
    pub(super) stop: CancellationToken,
    /// Cancelled when its platform has found it ready.
    pub(super) ready: CancellationToken,
    /// Cancelled when the process has exited or was killed. Tasks that it has left may still run in
    /// the simulation, but must have no effect outside.
    pub(super) gone: CancellationToken,
}

/// Runs one process until its exit.
pub(super) type Program =
    Arc<dyn Fn(Process) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How a program is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// By the path of the platform, on the internal server.
    Internal,
    /// By a path of the server itself, which responds with a status below 400.
    Path(String),
    /// By a connection.
    Connect,
}

/// A version of the service.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) program: Program,
    pub(super) probe: Probe,
}

/// Event of a process that is killed after its grace period.
pub(super) const KILLED: &str = "killed";
/// Pause before a process that was never ready is started again; it doubles.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Marks the process as gone, however its task ends.
struct Gone(Process);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.gone.cancel();
        self.0.trace.record(&self.0.name, "process ends", &[]);
    }
}

/// Runs a process to its exit. If it exits before it was ready, it is started again, as the kubelet
/// and systemd do: a downstream may have failed.
pub(super) async fn live(program: Program, process: Process, grace_period: Duration) {
    let _gone = process.gone.clone().drop_guard();
    let mut pause = RESTART_AFTER;
    loop {
        let gone = process.gone.child_token();
        live_once(&program, Process { gone, ..process.clone() }, grace_period).await;
        if process.stop.is_cancelled() || process.ready.is_cancelled() {
            return;
        }
        client::pause(pause).await;
        pause *= 2;
    }
}

/// Kills the process if it runs for longer than `grace_period` after its stop.
async fn live_once(program: &Program, process: Process, grace_period: Duration) {
    let gone = Gone(process.clone());
    let (stop, trace, name) = (process.stop.clone(), process.trace.clone(), process.name.clone());
    trace.record(&name, "process begins", &[]);
    let killing = async {
        stop.cancelled().await;
        client::pause(grace_period).await;
        trace.record(&name, KILLED, &[("after", format!("{grace_period:?}").into())]);
    };
    tokio::select! {
        biased;
        () = program(process) => {}
        () = killing => {}
    }
    drop(gone);
}
