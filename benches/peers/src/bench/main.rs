//! The bench: every server answers the same request in one interleaved run, and one table tells what it cost.
//!
//! The servers have one core, the load generator (`wrk`) another. The rounds go through all servers in turn, so that a noisy minute
//! hurts all alike; what is printed are medians, and how far the rounds lay apart. Instructions are counted by callgrind, which no
//! noise reaches.
//!
//! `bench [--rounds N] [--seconds N] [--connections N] [--skip-load] [--skip-idle] [--skip-instructions] [--json FILE] [SERVER…]`

mod idle;
mod instructions;
mod load;
mod server;
mod table;

use serde_json::{Value, json};
use std::{env, error::Error, fs, io::Write as _};

/// In the order of the table.
const SERVERS: [&str; 7] = ["lameduck", "bare", "lameduck_axum", "axum", "graceful", "actix", "floor"];

struct Options {
    rounds: usize,
    seconds: u64,
    connections: usize,
    load: bool,
    idle: bool,
    instructions: bool,
    json: Option<String>,
    servers: Vec<String>,
}

impl Options {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            rounds: 5,
            seconds: 3,
            connections: 10_000,
            load: true,
            idle: true,
            instructions: true,
            json: None,
            servers: Vec::new(),
        };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--json" => options.json = Some(value()?),
                "--skip-load" => options.load = false,
                "--skip-idle" => options.idle = false,
                "--skip-instructions" => options.instructions = false,
                flag if flag.starts_with('-') => return Err(format!("no such flag: {flag}").into()),
                _ => options.servers.push(word),
            }
        }
        if options.servers.is_empty() {
            options.servers = SERVERS.map(str::to_owned).to_vec();
        }
        Ok(options)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse()?;
    let mut results: Vec<Value> = options.servers.iter().map(|name| json!({ "server": name })).collect();
    for (result, name) in results.iter_mut().zip(&options.servers) {
        result["binary_bytes"] = server::binary(name)?.metadata()?.len().into();
    }
    if options.load {
        let mut samples = vec![Vec::new(); options.servers.len()];
        for round in 0..options.rounds {
            for (samples, name) in samples.iter_mut().zip(&options.servers) {
                progress(&format!("load: round {round}, {name}"));
                samples.push(load::measure(name, options.seconds)?);
            }
        }
        for (result, samples) in results.iter_mut().zip(&samples) {
            result["load"] = load::summary(samples);
        }
    }
    if options.idle {
        for history in [idle::History::ServedOnce, idle::History::Byteless] {
            let mut samples = vec![Vec::new(); options.servers.len()];
            for round in 0..options.rounds.min(3) {
                for (samples, name) in samples.iter_mut().zip(&options.servers) {
                    progress(&format!("idle connections, {history:?}: round {round}, {name}"));
                    samples.push(idle::measure(name, options.connections, history)?);
                }
            }
            for (result, samples) in results.iter_mut().zip(&samples) {
                result[history.name()] = idle::summary(samples);
            }
        }
    }
    if options.instructions {
        for (result, name) in results.iter_mut().zip(&options.servers) {
            progress(&format!("instructions: {name}"));
            result["instructions"] = instructions::measure(name)?.into();
        }
    }
    progress("");
    table::print(&results, &mut std::io::stdout().lock())?;
    if let Some(path) = options.json {
        fs::write(path, serde_json::to_string_pretty(&results)?)?;
    }
    Ok(())
}

/// On one line of the terminal.
fn progress(what: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody may be watching.
    let _ = write!(out, "\r\x1b[K{what}").and_then(|()| out.flush());
}

/// The middle one, and how far the farthest lie apart, as a part of it.
fn median(mut samples: Vec<f64>) -> Value {
    samples.sort_by(f64::total_cmp);
    let Some((first, last)) = samples.first().zip(samples.last()) else { return Value::Null };
    let middle = samples[samples.len() / 2];
    json!({ "median": middle, "spread": if middle > 0.0 { (last - first) / middle } else { 0.0 } })
}
