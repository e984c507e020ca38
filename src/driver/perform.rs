//! Performs what the machine asks for.

use super::{Driver, Exiting, Worker, hooks::Half, words::meaning};
use crate::{
    background::TaskContext,
    env::{Network, Reservation, Room, Rooms, SignalSource},
    errors::chain,
    http::{CrewParts, HttpService, Kind, Order, Outstanding, Sealing, TrackedWork, WorkOrigin, millis, work_and_stay},
    lifecycle::{Action, HookVerdict, Moment, Phase, Signal, StopReason},
};
use std::{io, sync::Arc};
use tokio::sync::{mpsc, oneshot};

impl<S, N, G, R> Driver<S, N, G, R>
where
    S: HttpService,
    N: Network,
    G: SignalSource,
    R: Rooms,
{
    pub(super) fn perform_all(&mut self, now: Moment) -> Exiting {
        while let Some(action) = self.life.poll_action() {
            if self.perform(action, now) == Exiting::Yes {
                return Exiting::Yes;
            }
        }
        Exiting::No
    }

    pub(super) fn perform(&mut self, action: Action, now: Moment) -> Exiting {
        match action {
            Action::Publish(phase) => self.publish(phase, now),
            Action::RunStartHook(hook) => self.run_hook(hook, Half::Start, now),
            Action::CancelStartHook(hook) => self.cancel_hook(hook),
            Action::DropStartHook(hook) => self.drop_hook(hook, HookVerdict::StartDropped, now),
            Action::Listen => self.listen(),
            Action::Abandon => self.abandon(),
            Action::ArmWatchdog(at) => self.rooms.arm_watchdog(at),
            Action::Quiesce => self.quiesce(),
            Action::CancelRoot => self.main.cancel_root(),
            Action::Abort => {
                self.main.abort();
                self.order(Order::Look);
            }
            Action::Cut => {
                self.main.cut();
                self.order(Order::Abandon);
            }
            Action::RunStopHook(hook) => self.run_hook(hook, Half::Stop, now),
            Action::GiveUpStopHook(hook, why) => self.drop_hook(hook, HookVerdict::GivenUp(why), now),
            Action::ReleaseWorkers => self.release_workers(),
            Action::CloseInternal => {
                self.internal.publish(Phase::Draining, now);
                let _ = self.internal_orders.send(Order::Close);
            }
            Action::CutInternal => {
                self.internal.cut();
                let _ = self.internal_orders.send(Order::Abandon);
            }
            Action::Exit => return Exiting::Yes,
        }
        Exiting::No
    }

    pub(super) fn publish(&mut self, phase: Phase, now: Moment) {
        // First, so that no probe reads the new phase with the old value.
        self.board.note_serving(self.life.is_serving());
        self.main.publish(phase, now);
        let stop = self.life.history().stop;
        self.board.note_phase(phase, now, stop.map(|stop| stop.deadline));
        if phase == Phase::Serving {
            self.start_background();
        }
        if phase >= Phase::LameDuck {
            self.order(Order::Look);
        }
        if phase >= Phase::Draining {
            self.checks.dismiss();
        }
        if phase == Phase::LameDuck
            && let Some(StopReason::Signal(Signal::Interrupt)) = stop.map(|stop| stop.reason)
        {
            crate::log::info!("press Ctrl-C again to skip the wait");
        }
        let waits = matches!(phase, Phase::Draining | Phase::Cancelling);
        let outstanding = waits.then(|| Outstanding::of(&self.main));
        crate::log::info!(
            phase = phase.name(),
            in_flight = self.main.tally.requests().in_flight(),
            connections = self.main.tally.connections().open(),
            since_stop_ms = stop.map(|stop| millis(now.since(stop.at))),
            reason = stop.map(|stop| stop.reason.to_string()),
            waiting_for = outstanding.and_then(|outstanding| outstanding.to_text()),
            "{}",
            meaning(phase)
        );
    }

    pub(super) fn listen(&mut self) {
        let reservations = std::mem::take(&mut self.reservations);
        let knobs = self.parts.settings.knobs(&["addr", "port"]);
        self.listening = Some(Box::pin(async move {
            let mut all = Vec::new();
            for reservation in reservations {
                let address = reservation.local();
                let listeners = reservation
                    .listen()
                    .await
                    .map_err(|error| format!("cannot listen on the main address {address}{knobs}: {}", chain(&error)))?;
                all.push(listeners);
            }
            Ok(all)
        }));
    }

    /// Gives each worker one listener of each address.
    pub(super) fn staff(&mut self, addresses: Vec<Vec<N::Listener>>) -> io::Result<()> {
        let count = self.rooms.workers().get();
        let sealing = Arc::new(Sealing::new(count));
        let mut shares: Vec<Vec<N::Listener>> = (0..count).map(|_| Vec::new()).collect();
        for listeners in addresses {
            for (share, listener) in shares.iter_mut().zip(listeners) {
                share.push(listener);
            }
        }
        for (n, listeners) in shares.into_iter().enumerate() {
            let beats = self.heartbeats.of_worker(n).unwrap_or_default();
            let parts = CrewParts { side: self.main.clone(), service: self.service.clone(), beats };
            let (orders, received) = mpsc::unbounded_channel();
            let (emptied, empty) = oneshot::channel();
            let working = work_and_stay(parts, listeners, received, sealing.clone(), emptied);
            let end = self.rooms.enter(Room::Worker(n), Box::pin(working))?;
            self.workers.push(Worker { orders, empty: Some(empty), end });
        }
        Ok(())
    }

    pub(super) fn start_background(&mut self) {
        for task in std::mem::take(&mut self.parts.background) {
            let name = task.name;
            let side = self.main.clone();
            let origin = WorkOrigin::Task(name.as_str().into());
            let tracked = TrackedWork::new(&side, Kind::Task, origin.clone());
            let work = async move {
                let context = TaskContext { side: side.clone(), origin };
                // All of it is the app's code: making the future, running it, and formatting its error.
                let running = async move { (task.run)(context).await.map_err(|error| chain(&*error)) };
                (name, side.run_tracked(&tracked, running).await.flatten())
            };
            // The drain waits until the driver has the result, so that no failure in the drain comes too late.
            if let Err(error) = self.background.admit(&self.rooms, self.main.tasks.token(), work) {
                crate::log::error!(%error, "cannot run a background task");
            }
        }
    }

    pub(super) fn quiesce(&mut self) {
        self.order(Order::Quiesce);
        let empties: Vec<_> = self.workers.iter_mut().filter_map(|worker| worker.empty.take()).collect();
        let main = self.main.clone();
        self.emptying = Some(Box::pin(async move {
            for empty in empties {
                // Nothing is ever sent: it is told by the drop, and so by a worker that panicked, too.
                let _ = empty.await;
            }
            // Only now can no handler track more work.
            main.tasks.close();
            main.tasks.wait().await;
        }));
    }

    pub(super) fn abandon(&mut self) {
        self.reservations.clear();
        self.listening = None;
        self.main.cut();
        self.order(Order::Abandon);
    }

    /// Lets the workers end, and with them the runtimes that untracked tasks may still use. A blocked worker does not.
    pub(super) fn release_workers(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        let emptying = self.emptying.take();
        self.releasing = Some(Box::pin(async move {
            // What was cut is counted only when the workers have carried it out.
            if let Some(emptying) = emptying {
                emptying.await;
            }
            for Worker { orders, end, .. } in workers {
                drop(orders);
                end.await;
            }
        }));
    }

    pub(super) fn order(&self, order: Order) {
        for worker in &self.workers {
            // A worker that is done does not listen any more.
            let _ = worker.orders.send(order);
        }
    }
}
