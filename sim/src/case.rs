//! A scenario with a description, stored as a file.

use crate::{explore::Network, scenario::Scenario};
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// A scenario with its description. Files in `sim/corpus/` are kept; those in `sim/failures/` wait
/// for a developer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Explains in a few sentences what the scenario does, what it broke and why.
    pub description: String,
    /// The promise that the scenario broke or covers.
    pub promise: String,
    /// The network on which the scenario runs.
    pub network: Network,
    /// The scenario.
    pub scenario: Scenario,
    /// What happened, if the scenario belongs to a user's service: only its own test can play it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The timeline as text.
    pub timeline: String,
    /// The log of the host, the service and the clients.
    pub log: Vec<String>,
    /// Every record, one a line.
    pub trace: String,
    /// The picture.
    pub svg: String,
}

impl Case {
    /// Reads a case from a file.
    ///
    /// # Errors
    /// If the file cannot be read or does not hold a case.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        serde_json::from_str(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Returns the case as pretty-printed JSON.
    ///
    /// # Panics
    /// Never: every field can be serialized.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("a case has only strings, numbers and lists");
        text.push('\n');
        text
    }
}
