//! Moments that are drawn at random: what would be very unlikely for many connections at once.

use super::{Connection, Delay};
use std::time::Duration;

/// An announcement within this time after the first response counts as immediate.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Least remaining delay in which a moment drawn at random is unlikely to be immediate.
const LEFT_LEAST: Duration = Duration::from_millis(500);

/// Probability below which chance is no explanation.
const UNLIKELY: f64 = 1e-6;

impl Delay<'_> {
    /// Whether moments drawn at random can be distinguished from immediate ones. This takes a long
    /// delay and a nearly constant latency.
    fn can_be_told_apart(&self) -> bool {
        let (near, far) = self.history.scenario.latency_ms;
        let long =
            self.history.world(self.history.scenario.plan().lame_duck) >= Duration::from_secs(1);
        long && far - near <= 2 && !self.history.is_impatient()
    }

    /// Checks that connections older than the stop request do not all get their GOAWAY at once. All
    /// clients would reconnect at once.
    pub(super) fn moments_of_the_stop_are_spread(&self) -> Result<(), String> {
        // Other limits send a GOAWAY at their own times.
        let limits = &self.history.scenario.limits;
        if !self.can_be_told_apart()
            || limits.keep_alive.is_some()
            || limits.connections_max.is_some()
        {
            return Ok(());
        }
        let spoke = |connection: &&Connection<'_>| {
            connection.first_head().is_some_and(|head| head < self.stop)
        };
        let told =
            self.connections.values().filter(spoke).filter_map(|connection| connection.goaway);
        let told: Vec<Duration> = told.filter(|told| *told > self.stop).collect();
        let near = self.history.under_way() + AT_ONCE;
        let share = near.as_secs_f64() / (self.last_part - self.stop).as_secs_f64();
        let chance = told.iter().fold(1.0, |chance, _| chance * share);
        if told.iter().all(|told| *told <= self.stop + near) && chance < UNLIKELY {
            return Err(format!(
                "{} connections got their GOAWAY at the time of the stop, {:?}",
                told.len(),
                self.stop
            ));
        }
        Ok(())
    }

    /// Checks that connections opened in the delay do not all announce right after their first
    /// response.
    pub(super) fn moments_of_late_connections_are_spread(&self) -> Result<(), String> {
        if !self.can_be_told_apart() {
            return Ok(());
        }
        let (mut all, mut at_once, mut chance) = (0, 0, 1.0);
        for connection in self.late().filter(|connection| self.is_http2(connection)) {
            let Some(head) = connection.first_head() else { continue };
            if head + LEFT_LEAST > self.last_part {
                continue;
            }
            all += 1;
            at_once += usize::from(connection.goaway.is_some_and(|told| told <= head + AT_ONCE));
            let since = |at: Duration| at.saturating_sub(connection.opened).as_secs_f64();
            chance *= since(head + AT_ONCE) / since(self.last_part);
        }
        if at_once == all && chance < UNLIKELY {
            return Err(format!(
                "{all} connections that were opened in the delay got their GOAWAY at once"
            ));
        }
        Ok(())
    }

    /// HTTP/1: checks that of the connections which were opened in the delay, and used again in it,
    /// some announce their close with a later response, and not all of them with the second one.
    /// The moment of each is equally likely anywhere between its accept and the last part.
    pub(super) fn late_connections_announce_at_their_moments(&self) -> Result<(), String> {
        let far = self.history.under_way() * 2 + self.moment();
        let (mut none, mut every) = (1.0, 1.0);
        let (mut announced, mut kept) = (0_usize, 0_usize);
        for connection in self.late().filter(|connection| !self.is_http2(connection)) {
            let span = self.last_part.saturating_sub(connection.opened).as_secs_f64();
            let heads = connection.requests.iter().skip(1).filter_map(|observed| observed.head);
            let before = heads.filter(|(at, ..)| *at < self.last_part).collect::<Vec<_>>();
            let share = |at: Duration| at.saturating_sub(connection.opened).as_secs_f64() / span;
            let (Some((second, _, at_once)), Some((last, ..))) = (before.first(), before.last())
            else {
                continue;
            };
            if span <= 0.0 {
                continue;
            }
            none *= 1.0 - share(last.saturating_sub(far)).clamp(0.0, 1.0);
            every *= share(*second + far).clamp(0.0, 1.0);
            announced += usize::from(before.iter().any(|(_, _, closes)| *closes));
            kept += usize::from(!at_once);
        }
        if announced == 0 && none < UNLIKELY {
            return Err("connections of the delay were used again late in it, and none of them \
                        announced its close"
                .to_owned());
        }
        if kept == 0 && every < UNLIKELY {
            return Err(
                "each connection of the delay announced its close with its second response"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
