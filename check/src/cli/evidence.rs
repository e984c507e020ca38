//! The folder of `--evidence`.

use crate::{
    evidence::Evidence,
    grading::Report,
    scenario::{Scenario, all},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Creates the folder of the evidence before the run, which takes minutes, and removes what an
/// earlier run has left in it.
pub(super) fn prepare(folder: &Path) -> Result<(), String> {
    let created = fs::create_dir_all(folder)
        .and_then(|()| Ok(rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)?))
        .and_then(|()| {
            all().try_for_each(|scenario| Evidence::remove(&evidence_of(scenario, folder)))
        });
    created.map_err(|error| format!("--evidence {}: {error}", folder.display()))
}

pub(super) fn write_evidence(report: &Report, folder: &Path) -> Result<(), String> {
    let failed = |error| format!("--evidence {}: {error}", folder.display());
    for graded in &report.graded {
        if let Some(evidence) = &graded.evidence {
            evidence.write(&evidence_of(graded.scenario, folder)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Returns the folder of the evidence of a scenario.
fn evidence_of(scenario: &Scenario, folder: &Path) -> PathBuf {
    folder.join(scenario.name.replace('/', "-"))
}

#[cfg(test)]
mod tests {
    use super::prepare;
    use std::fs;

    // A scenario that passed had the evidence of a failure: that of the run before.
    #[test]
    fn evidence_of_an_earlier_run_is_removed() {
        let folder = std::env::temp_dir().join(format!("lameduck-evidence-{}", std::process::id()));
        let failure = folder.join("accept-backlog");
        fs::create_dir_all(&failure).unwrap();
        for file in [failure.join("timeline.svg"), folder.join("mine")] {
            fs::write(file, "").unwrap();
        }
        prepare(&folder).unwrap();
        assert!(!failure.exists() && folder.join("mine").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
