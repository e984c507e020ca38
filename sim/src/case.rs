//! A scenario worth keeping, with its story, as a file.

use crate::{explore::Network, scenario::Scenario};
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// A scenario with its story: in `sim/corpus/` for ever, in `sim/failures/` until somebody has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What it is, what it broke and why, in a few sentences.
    pub description: String,
    /// The promise that it broke, or is about.
    pub promise: String,
    /// The network it is played on.
    pub network: Network,
    /// The scenario.
    pub scenario: Scenario,
}

impl Case {
    /// Reads one.
    ///
    /// # Errors
    /// If the file cannot be read, or is no case.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        serde_json::from_str(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// As it is written down.
    ///
    /// # Panics
    /// Never: everything in it can be written down.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("a case has only strings, numbers and lists");
        text.push('\n');
        text
    }
}
