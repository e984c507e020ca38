//! Deadlines of idle connections: timeouts, the checks of delivery, and the close of the drain.

use super::{IdleConnection, IdleSet, final_read};
use crate::http::{
    connection::{
        idle_handoff::{IdleInfo, IdleState},
        lingering::{FIN_BYTES, Lingering, Race},
        stall_timer::Delivery,
        task::State,
        transition::ReceivedAny,
    },
    exchange::http_service::HttpService,
    server::{client_timeout::ClientTimeout, limits::RACE_WATCH},
};
use crate::{
    lifecycle::Moment,
    runtime::{IdlePoller, Peek, Transport},
};
use bytes::Bytes;
use std::{
    mem,
    pin::Pin,
    task::{Context, Waker},
};
use tokio::io::AsyncWrite;

/// Number of watches that end together, from which on one query for all connections is cheaper than
/// one query each. It walks through all connections of the machine, which takes some milliseconds.
const QUERY_AT_ONCE_FROM: usize = 512;

impl<L: IdlePoller, S: HttpService> IdleSet<L, S> {
    /// Handles connections whose deadlines have expired, up to a batch. Returns the next deadline.
    pub(crate) fn sweep(&mut self, now: Moment) -> Moment {
        if self.is_draining() && self.handoff.is_open() {
            self.drain_handoff();
        }
        let mut next = Moment::NEVER;
        self.sweep_skipped = !self.expired.is_empty();
        if self.expired.is_empty() {
            for (key, connection) in &self.connections {
                let until = self.until(key, connection, now);
                if until <= now { self.expired.push(key) } else { next = next.min(until) }
            }
            self.query_closing();
        }
        next.min(self.handle_expired(now))
    }

    /// Queries the kernel once about all closing connections, if many of them end their watch.
    /// Nothing is written after a FIN, so the result stays true for all of them.
    fn query_closing(&mut self) {
        let needs_answer = |key: &&usize| {
            let connection = self.connections.get(**key);
            connection.is_some_and(|closing| closing.info.awaits_acknowledgement())
        };
        let Some(poller) = &mut self.poller else { return };
        if self.expired.iter().filter(needs_answer).count() < QUERY_AT_ONCE_FROM
            || !poller.query_shut()
        {
            return;
        }
        for (_, IdleConnection { io, info }) in &mut self.connections {
            if info.awaits_acknowledgement() {
                info.delivered = poller.unacknowledged(io).is_none_or(|bytes| bytes <= FIN_BYTES);
            }
        }
    }

    /// Whether expired connections are left that were not handled yet.
    pub(crate) const fn has_more_expired(&self) -> bool {
        !self.expired.is_empty()
    }

    /// Handles a batch of expired connections. Returns the next deadline among them.
    pub(crate) fn handle_expired(&mut self, now: Moment) -> Moment {
        let mut next = Moment::NEVER;
        let batch = self.worker.server().caps().close_batch;
        batch.note(self.expired.len());
        let left = self.expired.len().saturating_sub(batch.get());
        while self.expired.len() > left
            && let Some(key) = self.expired.pop()
        {
            if self
                .connections
                .get(key)
                .is_some_and(|connection| self.until(key, connection, now) <= now)
            {
                next = next.min(self.on_expired(key, now));
            }
        }
        let is_late = self.expired.is_empty() && mem::take(&mut self.sweep_skipped);
        if is_late { now } else { next }
    }

    /// Returns the moment until which a connection may stay in its state.
    fn until(&self, key: usize, connection: &IdleConnection<L::Idle>, now: Moment) -> Moment {
        let server = &self.worker.server();
        match connection.info.state {
            _ if server.is_cutting() => now,
            IdleState::Closing(_) => connection.info.since + RACE_WATCH,
            IdleState::Waiting => {
                let idle = connection.info.idle();
                let limits = &server.config.limits;
                idle.deadline(limits, server.draining_since())
                    .min(self.next_delivery_check(key, &connection.info))
            }
        }
    }

    /// Returns when to check whether the client has received the last response.
    fn next_delivery_check(&self, key: usize, info: &IdleInfo) -> Moment {
        match info.received_any {
            ReceivedAny::Yes if !info.delivered => {
                let delivery = self.undelivered.get(&key).unwrap_or(&Delivery::Unknown);
                delivery.next_check(info.since, self.worker.server().config.limits.send_timeout)
            }
            ReceivedAny::Yes | ReceivedAny::No | ReceivedAny::Handshake => Moment::NEVER,
        }
    }

    /// Handles a connection whose deadline has expired. Returns its next deadline.
    fn on_expired(&mut self, key: usize, now: Moment) -> Moment {
        let Some(connection) = self.connections.get_mut(key) else { return Moment::NEVER };
        let state = connection.info.state;
        if self.worker.server().is_cutting() {
            // Unread bytes would turn the close into a reset, which may discard the last response.
            connection.io.discard_unread();
            if state == IdleState::Waiting {
                self.worker.server().metrics.unannounced.add_one();
            }
            self.close(key);
            return Moment::NEVER;
        }
        let info = self.connections.get(key).map(|connection| &connection.info);
        let delivery_is_due = info.is_some_and(|info| self.next_delivery_check(key, info) <= now);
        match state {
            IdleState::Closing(_) => self.end_watch(key),
            IdleState::Waiting if self.is_draining() => return self.close_waiting(key, now),
            IdleState::Waiting if delivery_is_due => self.check_delivery(key, now),
            // The resumed connection closes itself.
            IdleState::Waiting => self.wake_task(key, Bytes::new()),
        }
        Moment::NEVER
    }

    /// Closes a connection of the drain: a final read, then the FIN (P5b). Returns when its watch
    /// for a close race ends.
    fn close_waiting(&mut self, key: usize, now: Moment) -> Moment {
        let Some(IdleConnection { io, info }) = self.connections.get_mut(key) else {
            return Moment::NEVER;
        };
        match final_read(io) {
            Peek::Data => self.wake_task(key, Bytes::new()),
            Peek::Ended | Peek::Broken => self.close(key),
            Peek::Empty | Peek::Unknown => {
                let shut = Pin::new(io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
                info.since = now;
                info.state = IdleState::Closing(Race::Open);
                self.worker.server().metrics.unannounced.add_one();
                if shut.is_ready() {
                    return now + RACE_WATCH;
                }
                self.resume_closing(key, Race::Open);
            }
        }
        Moment::NEVER
    }

    /// Ends the watch for a close race.
    fn end_watch(&mut self, key: usize) {
        // The deadline may pass before the socket was polled; poll it once more.
        self.count_race(&mut Context::from_waker(Waker::noop()), key);
        let Some(IdleConnection { io, info }) = self.connections.get(key) else { return };
        let IdleState::Closing(race) = info.state else { return };
        let is_unacknowledged = info.awaits_acknowledgement()
            && io.unacknowledged().is_some_and(|bytes| bytes > FIN_BYTES);
        if is_unacknowledged { self.resume_closing(key, race) } else { self.close(key) }
    }

    /// Continues a close in a task: its client has not acknowledged the last response, or a
    /// close_notify waits for a place in the kernel's buffer.
    fn resume_closing(&mut self, key: usize, race: Race) {
        let Some((_, slot, io, _)) = self.remove(key) else { return };
        let lingering = match race {
            Race::Open => Lingering::counting_races(io),
            Race::NotCounted | Race::Seen => Lingering::until_acked(io),
        };
        self.resume(slot, State::Lingering(Box::new(lingering)));
    }

    /// Closes a connection whose client has ended its side. It may still receive the last response.
    pub(super) fn on_client_ended(&mut self, key: usize) {
        let Some(IdleConnection { io, info }) = self.connections.get(key) else { return };
        if !info.delivered && io.unacknowledged().is_some_and(|bytes| bytes > 0) {
            self.resume_closing(key, Race::NotCounted);
        } else {
            self.close(key);
        }
    }

    /// Checks whether the client has received the last response, or goes on receiving it (P15).
    fn check_delivery(&mut self, key: usize, now: Moment) {
        let Some(IdleConnection { io, info }) = self.connections.get_mut(key) else { return };
        let unacknowledged = io.unacknowledged().unwrap_or(0) as u64;
        let delivery = self.undelivered.entry(key).or_default();
        if delivery.expired(unacknowledged, now) {
            io.reset_on_drop();
            let server = self.worker.server();
            server.note_client_timeout(ClientTimeout::Send, &info.peer, None);
            server.metrics.reset.add_one();
            self.close(key);
        } else if unacknowledged == 0 {
            info.delivered = true;
            self.undelivered.remove(&key);
        }
    }
}
