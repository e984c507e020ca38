//! Failures as files: what `Trials::replay` and the environment take.

use crate::{
    Case,
    scenario::{Request, Scenario},
};
use std::{
    env,
    io::{self, Write},
    path::Path,
};

/// The file that replaces the seeds.
const VARIABLE: &str = "LAMEDUCK_REPLAY";

/// Reads a scenario: its own text, or the text of a file in which it was saved.
pub(super) fn read(text: &str) -> Result<Scenario, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        serde_json::from_str::<Case>(text).map_or(Err(error), |it| Ok(it.scenario))
    })
}

/// Returns the scenario of the file that the environment names, if it sends only `requests`.
///
/// # Panics
/// Panics if the file cannot be read: a run of something else proves nothing.
#[track_caller]
pub(super) fn from_environment(requests: &[Request]) -> Option<Scenario> {
    let path = env::var_os(VARIABLE)?;
    match Case::read(Path::new(&path)) {
        Ok(case) if sends_only(&case.scenario, requests) => Some(case.scenario),
        Ok(_) => {
            let said = format!(
                "{VARIABLE}={}: it is of another test, so this one runs its seeds\n",
                path.display()
            );
            // A test's output is captured, and this is made to be read.
            let _ = io::stderr().write_all(said.as_bytes());
            None
        }
        Err(error) => panic!("{VARIABLE}={}: {error}", path.display()),
    }
}

/// Whether all clients of a scenario send one of `requests`.
pub(super) fn sends_only(scenario: &Scenario, requests: &[Request]) -> bool {
    scenario
        .clients
        .iter()
        .all(|client| client.request_kind.user().is_some_and(|request| requests.contains(request)))
}
