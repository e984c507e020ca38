//! Performs the actions that the lifecycle machine returns.

use super::{
    Driver, Exiting, Worker,
    hooks::HookStage,
    reporting::{WaitLog, phase_message},
};
use crate::{
    background::TaskContext,
    host_error::{HostError, HostErrorKind, TaskError},
    http::{
        HttpService, Kind, Outstanding, SealBarrier, WorkOrigin, WorkerCommand, WorkerParts,
        millis, run_until_released,
    },
    lifecycle::{Action, HookVerdict, Moment, Phase, Signal, StopReason},
    runtime::{JoinHandle, Reservation, SignalSource, Spawner, TaskKind},
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

impl<S: HttpService, M: Reservation, G: SignalSource, R: Spawner> Driver<S, M, G, R> {
    pub(super) fn perform_all(&mut self, now: Moment) -> Exiting {
        while let Some(action) = self.lifecycle.poll_action() {
            if self.perform(action, now) == Exiting::Yes {
                return Exiting::Yes;
            }
        }
        Exiting::No
    }

    pub(super) fn perform(&mut self, action: Action, now: Moment) -> Exiting {
        match action {
            Action::Publish(phase) => self.publish(phase, now),
            Action::RunStartHook(hook) => self.run_hook(hook, HookStage::Start, now),
            Action::CancelStartHook(hook) => self.cancel_hook(hook),
            Action::DropStartHook(hook) => self.drop_hook(hook, HookVerdict::StartDropped, now),
            Action::Listen => self.listen(),
            Action::Abandon => self.abandon(),
            Action::ArmWatchdog(at) => self.spawner.arm_watchdog(at),
            Action::Quiesce => self.quiesce(),
            Action::CancelRequests => {
                self.main.cancel_requests();
                let outstanding = Outstanding::of(&self.main).to_text();
                crate::log::info!(
                    waiting_for = outstanding,
                    "requests cancelled; long streams continue"
                );
            }
            Action::AbortRequests => {
                self.main.abort_requests();
                self.send_command(WorkerCommand::Wake);
            }
            Action::CutRequests => {
                self.main.cut_requests();
                self.send_command(WorkerCommand::Wake);
            }
            Action::CancelRoot => self.main.cancel_root(),
            Action::Abort => {
                self.main.abort();
                self.send_command(WorkerCommand::Wake);
            }
            Action::Cut => {
                self.main.cut();
                self.send_command(WorkerCommand::Abort);
            }
            Action::RunStopHook(hook) => self.run_hook(hook, HookStage::Stop, now),
            Action::GiveUpStopHook(hook, why) => {
                self.drop_hook(hook, HookVerdict::GivenUp(why), now);
            }
            Action::ReleaseWorkers => self.release_workers(),
            Action::CloseInternal => {
                self.is_internal_closing = true;
                self.internal.publish(Phase::Draining, now);
                let _ = self.internal_commands.send(WorkerCommand::Close);
            }
            Action::CutInternal => {
                self.internal.cut();
                let _ = self.internal_commands.send(WorkerCommand::Abort);
            }
            Action::Exit => return Exiting::Yes,
        }
        Exiting::No
    }

    pub(super) fn publish(&mut self, phase: Phase, now: Moment) {
        // Set this first, so that no probe reads the new phase with the old value.
        self.status.record_serving(self.lifecycle.is_serving());
        self.main.publish(phase, now);
        let stop = self.lifecycle.history().stop;
        self.status.record_phase(phase, now, stop.map(|stop| stop.deadline));
        if phase == Phase::Serving {
            self.start_background();
        }
        if phase >= Phase::LameDuck {
            self.send_command(WorkerCommand::Wake);
        }
        if phase >= Phase::Draining {
            self.checks.cancel_all();
        }
        if phase == Phase::LameDuck
            && let Some(StopReason::Signal(Signal::Interrupt)) = stop.map(|stop| stop.reason)
        {
            crate::log::info!("press Ctrl-C again to skip the wait");
        }
        let waits = matches!(phase, Phase::Draining | Phase::Cancelling);
        self.wait_log = waits.then(|| WaitLog::new(now));
        let outstanding = waits.then(|| Outstanding::of(&self.main));
        crate::log::info!(
            phase = phase.name(),
            in_flight = self.main.metrics.requests().in_flight(),
            connections = self.main.metrics.connections().open(),
            since_stop_ms = stop.map(|stop| millis(now.since(stop.at))),
            reason = stop.map(|stop| stop.reason.to_string()),
            waiting_for = outstanding.and_then(|outstanding| outstanding.to_text()),
            "{}",
            phase_message(phase)
        );
    }

    pub(super) fn listen(&mut self) {
        let reservations = std::mem::take(&mut self.reservations);
        let settings = &self.config.settings;
        // The listeners with PROXY headers come last.
        let without_header = settings.main_addresses_or_default().len();
        let knobs = [&["addr", "port"][..], &["proxy-protocol"]].map(|flags| settings.knobs(flags));
        self.is_listen_due = true;
        self.listening = Some(Box::pin(async move {
            let mut all = Vec::new();
            for (n, reservation) in reservations.into_iter().enumerate() {
                let address = reservation.local();
                let knobs = &knobs[usize::from(n >= without_header)];
                let listeners = reservation.listen().await.map_err(|error| {
                    let message = format!("cannot listen on the main address {address}{knobs}");
                    HostError::with_source(HostErrorKind::Listen, message, error)
                })?;
                all.push(listeners);
            }
            Ok(all)
        }));
    }

    /// Gives each worker one listener of each address.
    pub(super) fn spawn_workers(
        &mut self,
        addresses: Vec<Vec<M::Listener>>,
    ) -> Result<(), HostError> {
        let count = self.spawner.workers().get();
        let sealing = Arc::new(SealBarrier::new(count));
        let mut shares: Vec<Vec<M::Listener>> = (0..count).map(|_| Vec::new()).collect();
        for listeners in addresses {
            for (share, listener) in shares.iter_mut().zip(listeners) {
                share.push(listener);
            }
        }
        for (n, listeners) in shares.into_iter().enumerate() {
            let heartbeat = self.heartbeats.of_worker(n).unwrap_or_default();
            let config =
                WorkerParts { server: self.main.clone(), service: self.service.clone(), heartbeat };
            let (commands, received) = mpsc::unbounded_channel();
            let (closed, all_closed) = oneshot::channel();
            let (sealing, wrap) = (sealing.clone(), self.spawner.wrap_worker(n));
            let working = run_until_released(config, listeners, received, sealing, closed, wrap);
            let end =
                self.spawner.spawn(TaskKind::Worker(n), Box::pin(working)).map_err(|error| {
                    let message = "cannot start a worker";
                    HostError::with_source(HostErrorKind::System, message, error)
                })?;
            self.workers.push(Worker { commands, all_closed: Some(all_closed), end });
        }
        Ok(())
    }

    /// Starts the internal server, unless it has started. It comes after the workers because the
    /// first response does not need it. Its listener is open before.
    pub(super) fn start_internal(&mut self) -> Result<(), HostError> {
        let Some(server) = self.internal_server.take() else { return Ok(()) };
        let started = self.spawner.spawn(TaskKind::InternalServer, server);
        let (end, outcome): (JoinHandle, _) = match started {
            Ok(end) => (end, Ok(())),
            Err(error) => {
                let message = "cannot start the internal server";
                let failure = HostError::with_source(HostErrorKind::System, message, error);
                (Box::pin(async {}), Err(failure))
            }
        };
        self.internal_end = Some(end);
        outcome
    }

    pub(super) fn start_background(&mut self) {
        let mut names: Vec<String> = Vec::new();
        for task in std::mem::take(&mut self.config.background) {
            let name = task.name;
            // Tasks may have the same name. The number of one must not change when another ends.
            let same = names.iter().filter(|other| **other == name).count();
            names.push(name.clone());
            let refused = name.clone();
            let server = self.main.clone();
            let origin = WorkOrigin::Task(match same {
                0 => name.as_str().into(),
                _ => format!("{name}#{}", same + 1).into(),
            });
            let tracked = server.track(Kind::Task, origin.clone());
            let work = async move {
                let context = TaskContext { server: server.clone(), origin };
                // All of this is the app's code: making the future, running it, and formatting its
                // error.
                let running = async move { (task.run)(context).await.map_err(TaskError::returned) };
                let ended = server.run_tracked(&tracked, || false, running).await;
                (name, ended.unwrap_or_else(|lost| Err(TaskError::without_cause(lost))))
            };
            // The token is dropped after the result was sent, and the drain waits for the token. A
            // failure during the drain is therefore never received too late.
            if let Err(error) =
                self.background.spawn(&self.spawner, self.main.tracked_work.token(), work)
            {
                crate::log::error!(%error, "cannot spawn a background task");
                self.background.push((refused, Err(TaskError::returned(error.into()))));
            }
        }
    }

    pub(super) fn quiesce(&mut self) {
        self.send_command(WorkerCommand::Quiesce);
        let workers_closed: Vec<_> =
            self.workers.iter_mut().filter_map(|worker| worker.all_closed.take()).collect();
        let main = self.main.clone();
        self.main_closing = Some(Box::pin(async move {
            for all_closed in workers_closed {
                // No value is ever sent. The worker drops its sender when it is done, also when it
                // panics.
                let _ = all_closed.await;
            }
            // From here on no handler can track more work.
            main.tracked_work.close();
            main.tracked_work.wait().await;
        }));
    }

    pub(super) fn abandon(&mut self) {
        self.reservations.clear();
        self.listening = None;
        self.is_listen_due = false;
        self.main.cut();
        self.send_command(WorkerCommand::Abort);
    }

    /// Lets the workers end, and with them the runtimes that untracked tasks may still use. A
    /// blocked worker does not end.
    pub(super) fn release_workers(&mut self) {
        // Untracked tasks may have spawned work after the drain. It is dropped now, and counted.
        self.main.abort();
        let workers = std::mem::take(&mut self.workers);
        let main_closing = self.main_closing.take();
        let main = self.main.clone();
        self.releasing = Some(Box::pin(async move {
            // Requests and tasks that were cut are counted only once the workers have dropped them.
            if let Some(main_closing) = main_closing {
                main_closing.await;
            }
            main.tracked_work.close();
            main.tracked_work.wait().await;
            for Worker { commands, end, .. } in workers {
                drop(commands);
                end.await;
            }
        }));
    }

    pub(super) fn send_command(&self, command: WorkerCommand) {
        for worker in &self.workers {
            // A worker that has ended no longer receives commands.
            let _ = worker.commands.send(command);
        }
    }
}
