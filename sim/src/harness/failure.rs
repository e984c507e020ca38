//! A failure: the broken promise, the smallest scenario found that breaks it, and how to replay it.

use crate::{oracle::Broken, scenario::Scenario};
use std::{error::Error, fmt};

/// A service that did not survive a shutdown.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Seed whose scenario failed.
    pub seed: u64,
    /// The promise that did not hold.
    pub broken: Broken,
    /// The failing scenario, shrunk.
    pub scenario: Box<Scenario>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stop = self.scenario.first_stop_ms().unwrap_or(0);
        writeln!(f, "{}", self.broken)?;
        writeln!(f, "seed {}, shrunk: stop requested at {stop} ms", self.seed)?;
        for client in &self.scenario.clients {
            writeln!(
                f,
                "  at {:>6} ms {:?} requests {:?}",
                client.at_ms, client.traffic, client.request_kind
            )?;
        }
        let text = serde_json::to_string(&self.scenario).map_err(|_| fmt::Error)?;
        write!(f, "to reproduce it, replace the seeds by: .replay(r#\"{text}\"#)")
    }
}

/// Prints the same text as `Display`, since a test prints the `Debug` form of an error that it
/// unwraps.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Failure {}
