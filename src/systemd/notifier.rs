//! Notifies the service manager of the phases of the process.
//!
//! ```text
//!  Starting    nothing: READY is sent only when it is true
//!  Serving     READY=1  STATUS                          WATCHDOG=1 at half its timeout,
//!                                                       unless a worker is wedged
//!  LameDuck    STOPPING=1  EXTEND_TIMEOUT_USEC  STATUS  STATUS every second, WATCHDOG=1 as before
//!  later       EXTEND_TIMEOUT_USEC  STATUS, per phase   the same
//! ```
//!
//! `EXTEND_TIMEOUT_USEC` is the rest of the bound (P7), plus one second. The manager never stops
//! the process earlier because of it than `TimeoutStopSec` says. So if that is longer than our
//! worst case, it changes nothing; if it is shorter, our plan counts. It is repeated in every
//! phase, because the manager restarts its timer when its own state changes.
//!
//! The notifier reads the host's status on the internal server's thread, and touches nothing that
//! requests use. READY, STOPPING, EXTEND and WATCHDOG are resent until the manager has received
//! them. A lost STATUS is followed by the next one. A manager that does not receive costs one line
//! in the log.

use crate::{
    internal::HostStatus,
    lifecycle::{Moment, Phase, WATCHDOG_SLACK},
    os::{NotifySocket, monotonic_usec},
};
use humantime::format_duration;
use std::{io, sync::Arc, time::Duration};

/// Interval of status checks once a stop was requested.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before an undelivered message is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Time that the process takes to end after its bound: the watchdog's slack, and as much for the
/// kernel.
const EXIT_MARGIN: Duration = WATCHDOG_SLACK.saturating_mul(2);

const STOPPING: &str = "STOPPING=1";

/// Sends notifications to the manager.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: NotifySocket,
    /// Half of the manager's watchdog timeout.
    feed_every: Option<Duration>,
    pending: PendingMessages,
    was_delivered: bool,
}

impl Notifier {
    /// Returns a notifier that sends to `socket`, and feeds a watchdog with the timeout `watchdog`.
    pub(super) fn new(socket: NotifySocket, watchdog: Option<Duration>) -> Self {
        let feed_every = watchdog.map(|timeout| (timeout / 2).max(Duration::from_millis(1)));
        Self { socket, feed_every, pending: PendingMessages::default(), was_delivered: true }
    }

    /// Sends notifications for as long as it is polled.
    pub(super) async fn observe(mut self, status: Arc<HostStatus>) {
        let mut fed: Option<Moment> = None;
        loop {
            let now = status.clock.now();
            let snapshot = StatusSnapshot::of(&status, now);
            let next_feed = fed.zip(self.feed_every).map(|(fed, every)| fed + every);
            let is_due = self.feed_every.is_some()
                && snapshot.phase >= Phase::Serving
                && next_feed.is_none_or(|next| now >= next);
            let feeds = is_due && snapshot.wedged.is_none();
            if let Some(message) = self.pending.next(&snapshot, feeds) {
                let sent = self.socket.send(&message);
                let was_sent = sent.is_ok();
                self.note(sent);
                if feeds && was_sent {
                    fed = Some(now);
                }
                // The end of a reload is a separate message.
                if was_sent && self.pending.reloads != snapshot.reloads {
                    continue;
                }
            }
            // A watchdog's message that is due and was not sent is tried again soon.
            let next_feed = if is_due && fed != Some(now) {
                self.feed_every.map(|every| now + RETRY_DELAY.min(every))
            } else {
                self.feed_every.zip(fed).map(|(every, fed)| fed + every)
            };
            let wake = [
                (!self.pending.unacked.is_empty()).then(|| now + RETRY_DELAY),
                (snapshot.phase >= Phase::LameDuck).then(|| now + STATUS_INTERVAL),
                next_feed,
            ];
            let wake = wake.into_iter().flatten().min().unwrap_or(Moment::NEVER);
            let mut sleep = status.clock.sleep_until(wake);
            tokio::select! {
                biased;
                () = status.changed.notified() => {}
                () = sleep.as_mut() => {}
            }
        }
    }

    fn note(&mut self, sent: io::Result<()>) {
        match sent {
            Ok(()) => {
                self.pending.unacked.clear();
                self.was_delivered = true;
            }
            Err(error) => {
                self.pending.status.clear();
                if std::mem::replace(&mut self.was_delivered, false) {
                    crate::log::warn!(%error, "cannot reach the service manager; retrying");
                }
            }
        }
    }
}

/// The status that is reported to the manager.
#[derive(Clone, Debug)]
struct StatusSnapshot {
    phase: Phase,
    /// Rest of the shutdown's bound, once a stop was requested.
    remaining: Option<Duration>,
    in_flight: u64,
    connections: u64,
    wedged: Option<String>,
    /// Reloads that have begun, and those that have ended.
    reloads: [u64; 2],
    monotonic_usec: u64,
}

impl StatusSnapshot {
    fn of(status: &HostStatus, now: Moment) -> Self {
        let (phase, deadline) = status.entered();
        Self {
            phase,
            remaining: deadline.map(|deadline| deadline.since(now)),
            in_flight: status.main.metrics.requests().in_flight(),
            connections: status.main.metrics.connections().open(),
            wedged: status.liveness_failure(),
            reloads: status.reloads(),
            monotonic_usec: monotonic_usec(),
        }
    }

    fn status(&self) -> String {
        let phase = self.phase;
        match (&self.wedged, self.remaining) {
            (Some(reason), _) => format!("{phase}: {reason}"),
            (None, None) => phase.to_string(),
            (None, Some(remaining)) => format!(
                "{phase}: {} in flight, {} connections, at most {} left",
                self.in_flight,
                self.connections,
                format_duration(Duration::from_secs(remaining.as_millis().div_ceil(1000) as u64))
            ),
        }
    }
}

/// What was sent, and what is still to be sent.
#[derive(Debug, Default)]
struct PendingMessages {
    sent: Option<Phase>,
    /// Reloads whose beginning, and those whose end was added.
    reloads: [u64; 2],
    status: String,
    /// Lines that must be delivered and were not yet, in order.
    unacked: Vec<String>,
}

impl PendingMessages {
    /// Returns the next datagram, if there is something to send.
    fn next(&mut self, snapshot: &StatusSnapshot, feeds: bool) -> Option<String> {
        if snapshot.phase == Phase::Starting {
            return None;
        }
        if self.sent != Some(snapshot.phase) {
            self.enter_phase(snapshot);
        }
        if snapshot.phase == Phase::Serving {
            self.add_reloads(snapshot);
        } else {
            self.reloads = snapshot.reloads;
        }
        let mut lines = self.unacked.clone();
        let status = snapshot.status();
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        if feeds {
            lines.push("WATCHDOG=1".to_owned());
        }
        (!lines.is_empty()).then(|| lines.join("\n") + "\n")
    }

    /// Adds the beginning of a reload, or its end, each in its own message (`sd_notify(3)`).
    fn add_reloads(&mut self, snapshot: &StatusSnapshot) {
        let ([begun, ended], [begun_sent, ended_sent]) = (snapshot.reloads, self.reloads);
        if begun > begun_sent {
            self.reloads[0] = begun;
            // Reloads that ended meanwhile are part of this one.
            self.reloads[1] = ended.min(begun - 1);
            self.unacked.push(format!("RELOADING=1\nMONOTONIC_USEC={}", snapshot.monotonic_usec));
        } else if ended == begun && ended > ended_sent && self.unacked.is_empty() {
            self.reloads[1] = ended;
            self.unacked.push("READY=1".to_owned());
        }
    }

    fn enter_phase(&mut self, snapshot: &StatusSnapshot) {
        let earlier = self.sent.replace(snapshot.phase);
        if snapshot.phase == Phase::Serving {
            self.unacked.push("READY=1".to_owned());
        }
        let Some(remaining) = snapshot.remaining else { return };
        // Drop lines that are no longer true: an undelivered READY, the earlier remaining time.
        self.unacked.retain(|line| line == STOPPING);
        if earlier.is_none_or(|earlier| earlier < Phase::LameDuck) {
            self.unacked.push(STOPPING.to_owned());
        }
        self.unacked.push(format!(
            "EXTEND_TIMEOUT_USEC={}",
            remaining.saturating_add(EXIT_MARGIN).as_micros()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(phase: Phase, remaining: Option<u64>) -> StatusSnapshot {
        StatusSnapshot {
            phase,
            remaining: remaining.map(Duration::from_secs),
            in_flight: 2,
            connections: 3,
            wedged: None,
            reloads: [0; 2],
            monotonic_usec: 7,
        }
    }

    /// Returns the next datagram and marks it as delivered.
    fn deliver_next(
        pending: &mut PendingMessages,
        snapshot: &StatusSnapshot,
        feeds: bool,
    ) -> Option<String> {
        let message = pending.next(snapshot, feeds);
        pending.unacked.clear();
        message
    }

    #[test]
    fn nothing_is_sent_before_serving_and_nothing_twice() {
        let mut pending = PendingMessages::default();
        assert_eq!(deliver_next(&mut pending, &snapshot(Phase::Starting, None), true), None);
        let serving = snapshot(Phase::Serving, None);
        assert_eq!(
            deliver_next(&mut pending, &serving, true).unwrap(),
            "READY=1\nSTATUS=serving\nWATCHDOG=1\n"
        );
        assert_eq!(deliver_next(&mut pending, &serving, false), None);
        assert_eq!(
            deliver_next(&mut pending, &snapshot(Phase::LameDuck, Some(24)), false).unwrap(),
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000\nSTATUS=lame_duck: 2 in flight, 3 \
             connections, at most 24s left\n"
        );
        assert_eq!(deliver_next(&mut pending, &snapshot(Phase::LameDuck, Some(24)), false), None);
        assert_eq!(
            deliver_next(&mut pending, &snapshot(Phase::Draining, Some(19)), true).unwrap(),
            "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=draining: 2 in flight, 3 connections, at most \
             19s left\nWATCHDOG=1\n"
        );
    }

    #[test]
    fn a_required_line_is_resent_until_delivered_or_no_longer_true() {
        let mut pending = PendingMessages::default();
        let serving = snapshot(Phase::Serving, None);
        assert!(pending.next(&serving, false).unwrap().starts_with("READY=1\n"));
        assert_eq!(pending.next(&serving, false).unwrap(), "READY=1\n");
        let stopping = pending.next(&snapshot(Phase::LameDuck, Some(24)), false).unwrap();
        assert!(stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=25"), "{stopping}");
        let draining = pending.next(&snapshot(Phase::Draining, Some(19)), false).unwrap();
        assert!(
            draining.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nSTATUS"),
            "{draining}"
        );
    }

    #[test]
    fn a_stop_before_serving_is_sent_without_ready() {
        let sent =
            PendingMessages::default().next(&snapshot(Phase::CleaningUp, Some(6)), false).unwrap();
        assert!(sent.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=7000000\n"), "{sent}");
    }

    #[test]
    fn a_reload_is_two_messages_in_order_however_short_it_is() {
        let mut pending = PendingMessages::default();
        deliver_next(&mut pending, &snapshot(Phase::Serving, None), false);
        let at = |reloads| StatusSnapshot { reloads, ..snapshot(Phase::Serving, None) };
        let mut next = |reloads| deliver_next(&mut pending, &at(reloads), false);
        assert_eq!(next([1, 1]).unwrap(), "RELOADING=1\nMONOTONIC_USEC=7\n");
        assert_eq!(next([1, 1]).unwrap(), "READY=1\n");
        assert_eq!(next([1, 1]), None);
        assert_eq!(next([2, 1]).unwrap(), "RELOADING=1\nMONOTONIC_USEC=7\n");
        assert_eq!(next([2, 1]), None, "it is not ready yet");
        assert_eq!(next([2, 2]).unwrap(), "READY=1\n");
    }

    #[test]
    fn a_wedged_worker_is_named_until_it_recovers() {
        let mut pending = PendingMessages::default();
        deliver_next(&mut pending, &snapshot(Phase::Serving, None), true);
        let wedged = StatusSnapshot {
            wedged: Some("worker 0 has not run".to_owned()),
            ..snapshot(Phase::Serving, None)
        };
        assert_eq!(
            deliver_next(&mut pending, &wedged, false).unwrap(),
            "STATUS=serving: worker 0 has not run\n"
        );
        assert_eq!(deliver_next(&mut pending, &wedged, false), None);
        assert_eq!(
            deliver_next(&mut pending, &snapshot(Phase::Serving, None), true).unwrap(),
            "STATUS=serving\nWATCHDOG=1\n"
        );
    }
}
