//! A deploy that a service did not survive.

use super::{
    judge::Finding,
    play::DeployOutcome,
    process::KILLED,
    records::{ACKNOWLEDGED, DELIVERED, RETURNED, WROTE},
    scenario::{DeployScenario, Retries},
};
use crate::{
    harness::{account, proof::ADDED},
    oracle::Broken,
    trace::Record,
};
use std::{
    error::Error,
    fmt::{self, Write},
    time::Duration,
};

/// How long before and after the failure everything is shown.
const AROUND: Duration = Duration::from_secs(2);

/// The most lines of the log in a message.
const LINES_MAX: usize = 80;

/// A service that did not survive a deploy.
#[derive(Clone, PartialEq, Eq)]
pub struct DeployFailure {
    /// Seed whose scenario failed.
    pub seed: u64,
    /// The promise that did not hold.
    pub broken: Broken,
    /// The failing scenario, shrunk. `None` if the failure is not in one play.
    pub scenario: Option<Box<DeployScenario>>,
    pub(super) log: Vec<String>,
    /// The names of the downstreams, in their order.
    pub(super) downstreams: Vec<String>,
}

impl DeployFailure {
    /// Returns the text for [`DeployTrials::replay`](super::DeployTrials::replay).
    #[must_use]
    pub fn replay(&self) -> String {
        // A scenario has only strings, numbers and lists.
        serde_json::to_string(&self.scenario).unwrap_or_default()
    }
}

/// Returns the log of a play: the platform, the phases and the panics, and around the failure the
/// service, its host, and what concerns its client, key or message.
pub(super) fn log(outcome: &DeployOutcome, found: &Finding) -> Vec<String> {
    let records = outcome.trace.records();
    let of = found.of.as_deref();
    // A key is the name of its client, a number, and perhaps a step.
    let client =
        of.and_then(|of| of.match_indices('-').nth(1).map_or(Some(of), |(at, _)| of.get(..at)));
    let is_near = |at: Duration| at + AROUND >= found.at && at <= found.at + AROUND;
    let lines = records.iter().filter_map(|record| {
        let line = line(record, of, client, is_near(record.at))?;
        Some(format!("{:>8.3} s  {:<9} {line}", record.at.as_secs_f64(), record.actor))
    });
    lines.collect()
}

/// Returns the line of a record, unless it is of no interest to a reader.
fn line(record: &Record, of: Option<&str>, client: Option<&str>, is_near: bool) -> Option<String> {
    match record.event {
        "deploy begins" | "deploy ends" | "process begins" | "process ends" | KILLED | "ready"
        | "SIGTERM" | "traffic switched" | "found up" | "found down" => {
            Some(record.event.to_owned())
        }
        "phase" => Some(format!("── {} ──", record.text("phase")?)),
        "closed" | "used" if is_near => Some(format!("{} {}", record.event, record.text("of")?)),
        WROTE | DELIVERED | ACKNOWLEDGED | RETURNED if of.is_some() && record.text("of") == of => {
            Some(format!("{} {}", record.event, of?))
        }
        "panic" => account::words(record),
        "signal" | "exit" => None,
        "asks" | "completed" | "failed" | "connect failed" if client != Some(&*record.actor) => {
            None
        }
        _ if is_near => account::words(record),
        _ => None,
    }
}

/// Returns the names of the downstreams of a play, in their order.
pub(super) fn downstreams(outcome: &DeployOutcome) -> Vec<String> {
    let added = outcome.trace.events(ADDED);
    added.iter().filter_map(|record| record.text("what").map(ToOwned::to_owned)).collect()
}

fn in_words(scenario: &DeployScenario, downstreams: &[String], f: &mut impl Write) -> fmt::Result {
    for client in &scenario.clients {
        writeln!(
            f,
            "  a client sends {} every {} ms{}{}",
            client.request,
            client.every_ms,
            if client.keeps_connection { ", on one connection" } else { "" },
            match client.retries {
                Retries::Never => "",
                Retries::Allowed => ", again if it fails and may be repeated",
            }
        )?;
    }
    for fault in &scenario.faults {
        writeln!(f, "  {}", account::of_fault(*fault, downstreams))?;
    }
    Ok(())
}

impl fmt::Display for DeployFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        let Some(scenario) = &self.scenario else { return Ok(()) };
        writeln!(f, "seed {}, shrunk:", self.seed)?;
        in_words(scenario, &self.downstreams, f)?;
        let hidden = self.log.len().saturating_sub(LINES_MAX);
        if hidden > 0 {
            writeln!(f, "({hidden} earlier lines)")?;
        }
        for line in &self.log[hidden..] {
            writeln!(f, "{line}")?;
        }
        write!(f, "to reproduce it, replace the seeds by: .replay(r#\"{}\"#)", self.replay())
    }
}

/// Prints the same text as `Display`, since a test prints the `Debug` form of an error that it
/// unwraps.
impl fmt::Debug for DeployFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for DeployFailure {}
