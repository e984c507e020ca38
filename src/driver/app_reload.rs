//! The app's reload, by SIGHUP: one at a time, and only while serving.

use super::Driver;
use crate::{
    host_error::TaskError,
    http::{HttpService, millis},
    lifecycle::{Event, Moment, Phase, Signal, StopReason},
    runtime::{Reservation, SignalSource, Spawner},
    unwind::unwind,
};

impl<S: HttpService, M: Reservation, G: SignalSource, R: Spawner> Driver<S, M, G, R> {
    /// Returns the machine's event for a signal, if it requests the stop.
    pub(super) fn on_signal(&mut self, signal: Signal, now: Moment) -> Option<Event> {
        if signal == Signal::Hangup && self.config.reload.is_some() {
            self.reload(now);
            return None;
        }
        if !self.config.settings.stop_signals.contains(&signal) {
            crate::log::info!(signal = signal.name(), "signal ignored");
            return None;
        }
        Some(Event::StopRequested(StopReason::Signal(signal)))
    }

    /// Begins a reload, or lets the running one be followed by another.
    fn reload(&mut self, now: Moment) {
        if self.lifecycle.phase() != Phase::Serving {
            let phase = self.lifecycle.phase().name();
            crate::log::info!(phase, "reload ignored: the process does not serve");
            return;
        }
        if self.reload_since.is_some() {
            self.reload_again = true;
            return;
        }
        let Some(reload) = &self.config.reload else { return };
        self.reload_since = Some(now);
        self.status.record_reload_begun();
        crate::log::info!("reloading");
        let reload = reload.clone();
        // All of this is the app's code: making the future, running it, formatting its error.
        let running = unwind(async move { reload().await.map_err(TaskError::returned) });
        let work = async move {
            running
                .await
                .unwrap_or_else(|panic| Err(TaskError::without_cause(format!("panicked: {panic}"))))
        };
        if let Err(error) = self.reloads.spawn(&self.spawner, (), work) {
            self.on_reloaded(&Err(TaskError::returned(error.into())), now);
        }
    }

    pub(super) fn on_reloaded(&mut self, result: &Result<(), TaskError>, now: Moment) {
        let took_ms = self.reload_since.take().map(|since| millis(now.since(since)));
        self.status.record_reload_ended();
        match result {
            Ok(()) => crate::log::info!(took_ms, "reloaded"),
            Err(error) => {
                let error = error.with_causes();
                crate::log::error!(took_ms, error, "reload failed; the process goes on");
            }
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload(now);
        }
    }
}
