//! What the clients of deploys have lost, counted.

use super::{
    play::DeployOutcome, process::KILLED, proved::Proved, rollout::ENDS, scenario::Retries,
};
use crate::scenario::Request;
use std::{collections::BTreeMap, fmt};

/// What clients have lost in a number of plays.
///
/// A request is lost if its client got no complete response, or a status of 500 or more that it
/// does not expect. If the client repeats requests, only the last attempt counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Number of plays.
    pub plays: u64,
    /// Plays in which at least one request was lost.
    pub plays_with_loss: u64,
    /// Plays in which a client that repeats requests lost one.
    pub plays_with_loss_despite_retries: u64,
    /// Plays whose deploy did not end.
    pub unfinished: u64,
    /// Processes that were killed after the grace period.
    pub killed: u64,
    /// Requests of clients that never repeat one.
    pub requests: u64,
    /// How many of these were lost.
    pub lost: u64,
    /// Requests of clients that repeat what may be repeated.
    pub requests_with_retries: u64,
    /// How many of these were lost.
    pub lost_despite_retries: u64,
    /// The lost requests by their cause: a status, or how the last attempt failed.
    pub causes: BTreeMap<String, u64>,
}

impl Losses {
    /// Returns the share of the plays that lose a request, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.plays == 0 { 0.0 } else { self.plays_with_loss as f64 / self.plays as f64 }
    }

    /// Returns how many requests a deploy loses on average, of both kinds of clients.
    #[must_use]
    pub fn per_deploy(&self) -> f64 {
        let lost = (self.lost + self.lost_despite_retries) as f64;
        if self.plays == 0 { 0.0 } else { lost / self.plays as f64 }
    }

    /// Says how many processes were killed, and how many deploys did not end.
    pub(super) fn ends(&self) -> String {
        let killed = (self.killed, "processes were killed");
        let counts = [killed, (self.unfinished, "deploys did not end")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts.map(|(count, what)| format!("; {count} {what}")).collect()
    }

    pub(super) fn of(outcome: &DeployOutcome) -> Self {
        let mut losses = Self {
            plays: 1,
            unfinished: u64::from(!outcome.is_finished || outcome.trace.events(ENDS).is_empty()),
            killed: outcome.trace.events(KILLED).len() as u64,
            ..Self::default()
        };
        for observed in &outcome.observed {
            let cause = observed.lost();
            let lost = u64::from(cause.is_some());
            match observed.retries {
                Retries::Never => {
                    losses.requests += 1;
                    losses.lost += lost;
                }
                Retries::Allowed => {
                    losses.requests_with_retries += 1;
                    losses.lost_despite_retries += lost;
                }
            }
            if let Some(cause) = cause {
                *losses.causes.entry(cause).or_insert(0) += 1;
            }
        }
        losses.plays_with_loss = u64::from(losses.lost + losses.lost_despite_retries > 0);
        losses.plays_with_loss_despite_retries = u64::from(losses.lost_despite_retries > 0);
        losses
    }

    /// # Panics
    /// Panics if one of `requests`, or of those that follow them, never succeeded. `panicked`
    /// describes a panic that may be the cause.
    #[track_caller]
    pub(super) fn checked(
        self,
        proved: &Proved,
        requests: &[Request],
        panicked: Option<String>,
    ) -> Self {
        if let Some(request) = proved.missing(requests) {
            let name = request.name();
            let panicked = panicked.map(|panicked| format!("; {panicked}"));
            let cause = panicked.unwrap_or_else(|| proved.why(request));
            panic!("{name} never succeeded, so the deploys prove nothing about it: {self}{cause}");
        }
        self
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.plays += other.plays;
        self.plays_with_loss += other.plays_with_loss;
        self.plays_with_loss_despite_retries += other.plays_with_loss_despite_retries;
        self.unfinished += other.unfinished;
        self.killed += other.killed;
        self.requests += other.requests;
        self.lost += other.lost;
        self.requests_with_retries += other.requests_with_retries;
        self.lost_despite_retries += other.lost_despite_retries;
        for (cause, count) in &other.causes {
            *self.causes.entry(cause.clone()).or_insert(0) += count;
        }
    }
}

/// Writes `37 of 100 plays lose a request: …`.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} plays lose a request: {} of {} by clients that never repeat one, {} of {} by \
             clients that do",
            self.plays_with_loss,
            self.plays,
            self.lost,
            self.requests,
            self.lost_despite_retries,
            self.requests_with_retries
        )?;
        for (n, (cause, count)) in self.causes.iter().enumerate() {
            write!(f, "{}{count} × {cause}", if n == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.causes.is_empty() { "" } else { ")" })?;
        f.write_str(&self.ends())
    }
}
