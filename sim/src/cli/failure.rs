//! Reports a failure: shrinks it, describes it, and saves it.

use super::print_error;
use lameduck_sim::{
    Case,
    explore::{Found, Network, examine, play_on},
    oracle::Broken,
    shrink::shrink,
    timeline::of_scenario,
};
use std::{fs, io, path::PathBuf};

/// Maximum number of runs while shrinking.
const TRIES: u32 = 5_000;

/// Shrinks a failing scenario, prints what it breaks, and writes it to the `failures` folder.
pub(super) fn tell(network: Network, found: &Found) -> io::Result<()> {
    let play = play_on(network);
    let Some(broken) = found.broken.first() else { return Ok(()) };
    print_error(&format!("\nseed {}: {broken}", found.seed));
    let fails = |examined: &lameduck_sim::explore::Examined| {
        let is_same = |also: &&Broken| (also.promise, also.words) == (broken.promise, broken.words);
        examined.broken.iter().find(is_same).cloned()
    };
    let mut scenario =
        shrink(&found.scenario, TRIES, |candidate| fails(&examine(play, candidate)).is_some());
    scenario.about = format!("shrunk from seed {}", found.seed);
    let examined = examine(play, &scenario);
    let why = fails(&examined).map_or_else(|| broken.to_string(), |broken| broken.to_string());
    let case = Case {
        description: why.clone(),
        promise: broken.promise.to_owned(),
        network,
        scenario,
        recorded: None,
    };

    let folder = folder();
    fs::create_dir_all(&folder)?;
    let stem =
        folder.join(format!("{}-{}-{}", broken.promise.to_lowercase(), network.name(), found.seed));
    let file = stem.with_extension("json");
    fs::write(&file, case.to_json())?;
    if let Some(outcome) = &examined.outcome {
        fs::write(stem.with_extension("trace"), outcome.trace.text())?;
        fs::write(stem.with_extension("svg"), of_scenario(&case.scenario, outcome).svg())?;
    }
    print_error(&format!(
        "shrunk: {why}\nreplay: cargo run --release -p lameduck-sim -- --replay {} --trace",
        file.display()
    ));
    Ok(())
}

/// Returns `sim/failures` inside the repository, and `failures` elsewhere.
fn folder() -> PathBuf {
    let inside = PathBuf::from("sim");
    if inside.join("Cargo.toml").is_file() {
        inside.join("failures")
    } else {
        PathBuf::from("failures")
    }
}
