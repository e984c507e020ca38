//! A failure: the broken promise, the smallest scenario found that breaks it, what happened in it,
//! and how to replay it.

use super::{
    account::{Account, in_words},
    runner::is_on_other_network,
};
use crate::{
    case::{Case, Recorded},
    explore::Network,
    oracle::Broken,
    scenario::Scenario,
    trace::Fnv64,
};
use std::{
    env,
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// The folder in which failures are saved.
const FOLDER: &str = "LAMEDUCK_FAILURES";

/// A service that did not survive a shutdown.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Seed whose scenario failed.
    pub seed: u64,
    /// The promise that did not hold.
    pub broken: Broken,
    /// The failing scenario, shrunk. If no single run shows the failure (S4 of a target that no
    /// client requested, S6, S7 of an assertion that no run reached, S8), one of the runs.
    pub scenario: Box<Scenario>,
    pub(super) account: Box<Account>,
}

impl Failure {
    pub(super) fn new(broken: Broken, scenario: Box<Scenario>, account: Account) -> Self {
        let (seed, account) = (scenario.seed, Box::new(account));
        Self { seed, broken, scenario, account }
    }

    /// Marks it as one that no single run shows: in none of them something was reached, or two of
    /// one seed differ.
    pub(super) fn of_all_runs(mut self) -> Self {
        self.account.of_all_runs = true;
        self
    }

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

    /// Writes the failure to a folder, which is created if it does not exist: as a file for
    /// `lameduck-sim --replay` and [`Trials::replay`](super::Trials::replay), and its picture next
    /// to it. Returns the path of the file, such as `s2-7-6e1f0a3b.json`.
    ///
    /// `LAMEDUCK_FAILURES=FOLDER` does this for each failure of
    /// [`Trials::run`](super::Trials::run), also of a replay.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> io::Result<PathBuf> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder)?;
        let hash = Fnv64::of(self.replay().as_bytes()) as u32;
        let name = format!("{}-{}-{hash:08x}", self.broken.promise.to_lowercase(), self.seed);
        let path = folder.join(name).with_extension("json");
        fs::write(&path, self.case().to_json())?;
        fs::write(path.with_extension("svg"), self.svg())?;
        Ok(path)
    }

    fn case(&self) -> Case {
        let network = if is_on_other_network(self.scenario.seed) {
            Network::Turmoil
        } else {
            Network::TurmoilNet
        };
        let Account { timeline, log, svg, trace, .. } = (*self.account).clone();
        Case {
            description: self.broken.to_string(),
            promise: self.broken.promise.to_owned(),
            network,
            scenario: (*self.scenario).clone(),
            recorded: Some(Recorded { timeline, log, trace, svg }),
        }
    }

    /// Saves the failure if the environment has a folder for it.
    pub(super) fn saved(mut self) -> Self {
        if let Some(folder) = env::var_os(FOLDER) {
            self.account.saved = Some(match self.save(&folder) {
                Ok(path) => format!("it was saved as {}", path.display()),
                Err(error) => {
                    format!("it could not be saved in {FOLDER}={}: {error}", folder.display())
                }
            });
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        if let Some(note) = &self.account.note {
            writeln!(f, "note: {note}")?;
        }
        let (shrunk, what) = match self.account.of_all_runs {
            false => (", shrunk", "reproduce it"),
            true => ("", "see one of the runs"),
        };
        let words = in_words(&self.scenario, &self.account.downstreams);
        writeln!(f, "seed {}{shrunk}: {words}", self.seed)?;
        write!(f, "{}", self.account)?;
        if let Some(saved) = &self.account.saved {
            writeln!(f, "{saved}")?;
        }
        write!(f, "to {what}, replace the seeds by: .replay(r#\"{}\"#)", self.replay())
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
