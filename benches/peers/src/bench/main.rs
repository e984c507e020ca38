//! The bench: every server responds to the same request in one interleaved run, and tables show the
//! costs.
//!
//! The servers have one core, the load generators (`wrk`, `h2load`, our own clients) another. The
//! rounds alternate between all servers, so that a noisy minute affects all alike. The tables print
//! medians, and the spread of the rounds. callgrind counts instructions, which noise does not
//! affect. `USAGE` in `options.rs` lists the flags.

mod client;
mod conditions;
mod cores;
mod draining;
mod grpc;
mod h2load;
mod identity;
mod idle;
mod instructions;
mod lane;
mod last_response;
mod measure;
mod open_loop;
mod options;
mod peer;
mod perf;
mod plot;
mod runtimes;
mod server;
mod slopes;
mod start;
mod table;
mod watch;
mod wrk;

use crate::{cores::Noise, measure::Sample, options::Options, peer::Peer};
use serde_json::{Value, json};
use std::{env, error::Error, fs, io::Write as _};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let options = Options::parse(env::args().skip(1))?;
    let results = match &options.from {
        Some(path) => serde_json::from_str(&fs::read_to_string(path)?)?,
        None => run(&options)?,
    };
    if options.from.is_some() {
        write(options.json.as_deref(), &results)?;
    }
    if let Some(path) = &options.plot {
        fs::write(path, plot::draw(&results))?;
    }
    table::print(&results, &mut std::io::stdout().lock())?;
    Ok(())
}

fn run(options: &Options) -> Result<Value> {
    let mut results = json!({ "run": conditions::describe(options.rounds, options.seconds, options.connections) });
    cores::pin_client()?;
    let mut peers = Vec::new();
    for peer in &options.peers {
        match peer.missing() {
            None => peers.push(*peer),
            Some(why) => say(&format!("{} is left out: {why}\n", peer.name)),
        }
    }
    let mut noise = Noise::listen();
    results["servers"] =
        peers.iter().map(|peer| begin(peer)).collect::<Result<Vec<Value>>>()?.into();
    for measure in &options.measures {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); peers.len()];
        let rounds = options.rounds.min(measure.rounds_max);
        for round in 1..=rounds {
            for (samples, peer) in
                samples.iter_mut().zip(&peers).filter(|(_, peer)| (measure.suits)(peer))
            {
                say(&format!("{}: round {round} of {rounds}, {}", measure.name, peer.name));
                noise.peek()?;
                match (measure.take)(peer, options) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => {
                        say(&format!("{} of {} is left out: {error}\n", measure.name, peer.name))
                    }
                }
            }
        }
        for (index, samples) in samples.iter().enumerate() {
            results["servers"][index][measure.name] = measure::summary(samples);
        }
        results["run"]["noise"] = noise.summary();
        // An interrupted run keeps what it has measured.
        write(options.json.as_deref(), &results)?;
    }
    peer::clean_up();
    say("");
    Ok(results)
}

fn write(path: Option<&str>, results: &Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    Ok(fs::write(path, serde_json::to_string_pretty(results)? + "\n")?)
}

fn begin(peer: &Peer) -> Result<Value> {
    Ok(
        json!({ "name": peer.name, "binary": { "bytes": { "median": peer.binary()?.metadata()?.len() } } }),
    )
}

/// Prints progress on one line of the terminal.
fn say(what: &str) {
    let mut out = std::io::stderr().lock();
    // Standard error may be closed.
    let _ = write!(out, "\r\x1b[K{what}").and_then(|()| out.flush());
}
