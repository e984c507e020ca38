//! Runs a single scenario and prints its trace or picture.

use super::{Held, args::Args, print, print_error};
use lameduck_sim::{
    Case, Recorded,
    explore::{Examined, examine, play_on, quiet_panics},
    timeline::{Picture, of_log, of_scenario},
};
use std::{fs, io, path::Path};

/// Draws the log of a real process.
pub(super) fn draw_log(args: &Args, log: &Path) -> io::Result<Held> {
    let text = fs::read_to_string(log)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", log.display())))?;
    let picture = of_log(&text).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", log.display()))
    })?;
    print(&picture.to_string())?;
    save(args, &picture)?;
    Ok(Held::Yes)
}

fn save(args: &Args, picture: &Picture) -> io::Result<()> {
    args.svg.as_ref().map_or(Ok(()), |path| fs::write(path, picture.svg()))
}

pub(super) fn replay(args: &Args, case: &io::Result<Case>) -> io::Result<Held> {
    let case = case.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    if let Some(recorded) = &case.recorded {
        return show(args, case, recorded);
    }
    quiet_panics();
    let examined = examine(play_on(case.network), &case.scenario);
    if let Some(outcome) = &examined.outcome {
        let picture = of_scenario(&case.scenario, outcome);
        if args.json {
            print(&case.to_json())?;
        } else if args.trace {
            print(&format!("{}trace {:016x}\n", outcome.trace.text(), examined.hash))?;
        } else {
            print(&picture.to_string())?;
        }
        save(args, &picture)?;
    }
    verdict(&examined, &case.scenario.about)
}

/// Prints what a run has proved.
///
/// # Errors
/// If the machine stalled: a void run is not judged.
fn verdict(examined: &Examined, about: &str) -> io::Result<Held> {
    if examined.is_void {
        let why = "the machine stalled in each of its runs, so this proves nothing: run it again";
        return Err(io::Error::other(format!("{about}: {why}")));
    }
    for broken in &examined.broken {
        print_error(&broken.to_string());
    }
    if examined.broken.is_empty() {
        print_error(&format!("{about}: all promises held"));
        return Ok(Held::Yes);
    }
    Ok(Held::No)
}

/// Shows the run of a user's service, as it was recorded.
fn show(args: &Args, case: &Case, recorded: &Recorded) -> io::Result<Held> {
    if args.json {
        print(&case.to_json())?;
    } else if args.trace {
        print(&recorded.trace)?;
    } else {
        print(&format!("{}\n{}\n", recorded.timeline, recorded.log.join("\n")))?;
    }
    if let Some(path) = &args.svg {
        fs::write(path, &recorded.svg)?;
    }
    print_error(&case.description);
    print_error("this was recorded; to run it again, set LAMEDUCK_REPLAY to this file in its test");
    Ok(Held::No)
}

#[cfg(test)]
mod tests {
    use super::{Held, verdict};
    use lameduck_sim::explore::Examined;
    use std::time::Duration;

    // A scenario on Linux whose machine had stalled in all runs was not judged, and "all promises
    // held" was printed, with exit code 0.
    #[test]
    fn a_void_run_proves_nothing() {
        let examined = |is_void| Examined {
            broken: Vec::new(),
            exercised: Vec::new(),
            reached: Vec::new(),
            simulated: Duration::ZERO,
            hash: 0,
            replayed: false,
            void_runs: 6,
            is_void,
            outcome: None,
        };
        let error = verdict(&examined(true), "seed 7").unwrap_err().to_string();
        assert!(error.starts_with("seed 7: the machine stalled"), "{error}");
        assert_eq!(verdict(&examined(false), "seed 7").unwrap(), Held::Yes);
    }
}
