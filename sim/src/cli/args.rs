//! Command line arguments.

use clap::{Parser, Subcommand};
use lameduck_sim::{Case, explore::Network};
use std::{io, ops::Range, path::PathBuf, time::Duration};

/// Finds shutdown bugs: generates scenarios from seeds, runs them in a simulated network, and
/// checks every promise
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Seeds to explore: FROM..TO, TO excluded
    #[arg(long, value_name = "FROM..TO", value_parser = seeds, default_value = "0..5000")]
    pub(crate) seeds: Range<u64>,
    /// Explore for this time instead, starting at the first seed: 90s, 10m, 8h
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub(crate) time: Option<Duration>,
    /// Network: turmoil-net or turmoil, both simulated, or linux, in real time
    #[arg(long, value_name = "NAME", default_value = "turmoil-net")]
    pub(crate) network: Network,
    /// Number of scenarios that run in parallel [default: the number of cores]
    #[arg(long, value_name = "COUNT")]
    pub(crate) threads: Option<usize>,
    /// Run the scenario of one seed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["replay", "time"])]
    pub(crate) seed: Option<u64>,
    /// Run the scenario in a file, such as those in sim/corpus and sim/failures
    #[arg(long, value_name = "FILE", conflicts_with = "time")]
    pub(crate) replay: Option<PathBuf>,
    /// With --seed or --replay: print the full trace on stdout
    #[arg(long)]
    pub(crate) trace: bool,
    /// With --seed, --replay or --log: write the timeline to this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Draw the timeline of a real shutdown from the JSON log of the process
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "replay", "time"])]
    pub(crate) log: Option<PathBuf>,
    /// Print the summary as JSON on stdout; with --seed or --replay: the scenario
    #[arg(long)]
    pub(crate) json: bool,
    /// Run all seeds even after a failure, and print one line per failed seed
    #[arg(long, hide = true)]
    pub(crate) census: bool,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Search for the shortest lame duck delay that loses no request on a platform
    Advise(super::advise::Advise),
    /// Run the same scenarios in the simulation and on Linux, and compare what every client saw
    Fidelity {
        /// Seeds of the scenarios: FROM..TO, TO excluded
        #[arg(long, value_name = "FROM..TO", value_parser = seeds, default_value = "0..1000")]
        seeds: Range<u64>,
        /// Print the scenario of one seed instead, for --replay
        #[arg(long, value_name = "SEED")]
        case: Option<u64>,
    },
    /// Apply each patch of sim/zoo to a copy of the tree, and count the seeds until the bug is
    /// found
    Zoo {
        /// Run only patches whose names contain one of these
        names: Vec<String>,
        /// Number of seeds per patch
        #[arg(long, value_name = "COUNT", default_value_t = 2_000)]
        seeds: u64,
    },
}

impl Args {
    /// Returns the single scenario that was requested, if any.
    pub(crate) fn one(&self) -> Option<io::Result<Case>> {
        if let Some(path) = &self.replay {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            return Some(Case::read(path).map_err(named));
        }
        self.seed.map(|seed| {
            let scenario = self.network.draw(seed);
            Ok(Case {
                description: String::new(),
                promise: String::new(),
                network: self.network,
                scenario,
                recorded: None,
            })
        })
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) =
        text.split_once("..").ok_or("expected FROM..TO, two numbers such as 0..5000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() {
        return Err(format!("the range {text} is empty"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::{Args, seeds};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_flags_are_well_formed() {
        Args::command().debug_assert();
        let args = Args::parse_from(["lameduck-sim", "--seeds", "5..9", "--network", "turmoil"]);
        assert_eq!(args.seeds, 5..9);
        assert!(seeds("9..5").is_err() && seeds("nine").is_err());
    }
}
