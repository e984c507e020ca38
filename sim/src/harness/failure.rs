//! A failure: the broken promise, the smallest scenario found that breaks it, what happened in it,
//! and how to replay it.

use super::account::{Account, in_words};
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
    pub(super) account: Box<Account>,
}

impl Failure {
    /// Returns the picture of the run as SVG, or an empty string if the run left no trace.
    #[must_use]
    pub fn svg(&self) -> &str {
        &self.account.svg
    }

    /// Returns everything that was recorded in the run, one record a line.
    #[must_use]
    pub fn trace(&self) -> &str {
        &self.account.trace
    }

    /// Returns the text for [`Trials::replay`](super::Trials::replay).
    #[must_use]
    pub fn replay(&self) -> String {
        // A scenario has only strings, numbers and lists.
        serde_json::to_string(&self.scenario).unwrap_or_default()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        writeln!(f, "seed {}, shrunk: {}", self.seed, in_words(&self.scenario))?;
        write!(f, "{}", self.account)?;
        write!(f, "to reproduce it, replace the seeds by: .replay(r#\"{}\"#)", self.replay())
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
