//! One scenario, played and told.

use super::{Held, args::Args, print, say};
use lameduck_sim::{
    Case,
    explore::{examine, play_on, quiet_panics},
};
use std::io;

pub(super) fn replay(args: &Args, case: &io::Result<Case>) -> io::Result<Held> {
    let case = case.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    quiet_panics();
    let examined = examine(play_on(case.network), &case.scenario);
    if let Some(outcome) = &examined.outcome {
        if args.trace {
            print(&format!("{}trace {:016x}\n", outcome.trace.text(), examined.hash))?;
        }
    }
    for broken in &examined.broken {
        say(&broken.to_string());
    }
    if examined.broken.is_empty() {
        say(&format!("{}: all promises held", case.scenario.about));
        return Ok(Held::Yes);
    }
    Ok(Held::No)
}
