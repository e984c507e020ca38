//! Processes of a service on lameduck.

use super::process::{Probe, Process, Program, Version};
use crate::{
    explore::{call, set_current_trace},
    harness::{
        Setup, TestWorld, Trial,
        runner::setup_panic,
        world::{ProcessId, Shared},
    },
    host_run::HostRun,
    network::{AnyHost, Faults, HostNetwork},
    observe, scripted_signals,
};
use lameduck::{
    HttpService, Limits,
    lifecycle::{Plan, Signal},
};
use std::{num::NonZeroUsize, panic::resume_unwind, sync::Arc, time::Duration};

/// Event of a process whose setup panicked.
pub(super) const SETUP_PANICKED: &str = "setup panicked";
/// Event of a process whose setup asked for something that deploys do not have.
pub(super) const UNSUPPORTED: &str = "unsupported";

/// How the host of a process is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostSetup {
    pub(super) plan: Plan,
    pub(super) request_timeout: Option<Duration>,
}

/// Returns the version of a service that `setup` builds. All its processes share `shared`.
pub(super) fn version<S: HttpService>(
    setup: Setup<S>,
    host: HostSetup,
    shared: Arc<Shared>,
) -> Version {
    let program: Program = Arc::new(move |process| {
        Box::pin(run(Arc::clone(&setup), host, Arc::clone(&shared), process))
    });
    Version { program, probe: Probe::Internal }
}

async fn run<S: HttpService>(
    setup: Setup<S>,
    HostSetup { plan, request_timeout }: HostSetup,
    shared: Arc<Shared>,
    process: Process,
) {
    let Process { name, host, trace, seed, stop, gone, .. } = process;
    let (sender, signals) = scripted_signals(name.clone(), trace.clone());
    let host_run = HostRun {
        name: name.clone(),
        plan,
        request_timeout,
        limits: Limits::default(),
        hooks: Vec::new(),
        tasks: Vec::new(),
        checks: Vec::new(),
        reloads: None,
        clock_skew_ppm: 0,
        tls: false,
        workers: NonZeroUsize::MIN,
        seed,
        order: None,
        second_address: false,
        expects_headers: false,
        stalls: None,
    };
    let any_host: Arc<dyn AnyHost> = Arc::new(host.clone());
    let id = ProcessId { name: name.clone(), gone };
    let build = {
        let (trace, name) = (trace.clone(), name.clone());
        move |builder, _| {
            set_current_trace(trace.clone());
            let world = TestWorld::new(builder, any_host, shared, Some(id));
            let Trial { host, at_exit, excepted } = call(|| setup(world)).unwrap_or_else(|panic| {
                let why = setup_panic(&panic);
                trace.record(&name, SETUP_PANICKED, &[("why", why.clone().into())]);
                resume_unwind(Box::new(why))
            });
            if at_exit.is_some() || !excepted.is_empty() {
                trace.record(&name, UNSUPPORTED, &[]);
            }
            host
        }
    };
    let faults = Arc::new(Faults::new(name.clone(), trace.clone(), seed));
    let mut killed = ResetIfKilled(Some(Arc::clone(&faults)));
    let network = host.with_faults(faults);
    let subscriber = observe::service_observer(&name, trace.clone());
    let running = host_run.live_with(host, network, build, signals, trace, drop, subscriber);
    let stopping = async move {
        stop.cancelled().await;
        sender.send(Signal::Terminate);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = stopping => {}
        _ = running => {}
    }
    killed.0 = None;
}

/// Ends the connections of a process that is killed.
struct ResetIfKilled(Option<Arc<Faults>>);

impl Drop for ResetIfKilled {
    fn drop(&mut self) {
        if let Some(faults) = &self.0 {
            faults.reset_all();
        }
    }
}
