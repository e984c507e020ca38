//! Signals sent by a script.
#![expect(
    clippy::disallowed_methods,
    reason = "a script follows the world's time, not a host's clock"
)]

use crate::trace::Trace;
use lameduck::{lifecycle::Signal, runtime::SignalSource};
use std::{future, time::Duration};
use tokio::sync::mpsc;

/// Returns a signal source and its sender. `actor` is the name in the trace of the process that
/// receives the signals.
#[must_use]
pub fn scripted_signals(actor: impl Into<String>, trace: Trace) -> (SignalSender, ScriptedSignals) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (SignalSender { actor: actor.into(), trace, sender }, ScriptedSignals { receiver })
}

/// Sends signals to one simulated process.
#[derive(Clone, Debug)]
pub struct SignalSender {
    actor: String,
    trace: Trace,
    sender: mpsc::UnboundedSender<Signal>,
}

impl SignalSender {
    /// Sends one signal now. If the process has exited, the signal is lost and recorded as such.
    pub fn send(&self, signal: Signal) {
        let delivery = if self.sender.send(signal).is_ok() { "sent" } else { "no receiver" };
        self.trace.record(
            &self.actor,
            "signal",
            &[("signal", signal.name().into()), ("delivery", delivery.into())],
        );
    }

    /// Sends a SIGHUP to a service that reloads by it.
    pub(crate) fn reload(&self) {
        // A signal to a process that has exited is lost.
        let _ = self.sender.send(Signal::Hangup);
        self.trace.record(&self.actor, "reload requested", &[]);
    }

    /// Records a stop request that is not a signal.
    pub(crate) fn note(&self, event: &'static str) {
        self.trace.record(&self.actor, event, &[]);
    }

    /// Sends each signal of `script` at its time, counted from this call, in the order of the
    /// times.
    ///
    /// # Cancel safety
    /// If dropped early, the rest of the script is not sent.
    pub async fn play(&self, script: impl IntoIterator<Item = (Duration, Signal)>) {
        let start = tokio::time::Instant::now();
        let mut script: Vec<_> = script.into_iter().collect();
        script.sort_by_key(|(at, _)| *at);
        for (at, signal) in script {
            tokio::time::sleep_until(start + at).await;
            self.send(signal);
        }
    }
}

/// Receives the signals of a simulated process. Once all senders are dropped, `recv` never returns.
#[derive(Debug)]
pub struct ScriptedSignals {
    receiver: mpsc::UnboundedReceiver<Signal>,
}

impl SignalSource for ScriptedSignals {
    async fn recv(&mut self) -> Signal {
        match self.receiver.recv().await {
            Some(signal) => signal,
            None => future::pending().await,
        }
    }
}
