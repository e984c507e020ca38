//! Instructions a request and bytes an idle connection: what noise cannot touch.
//!
//! callgrind counts the instructions of a server in a long run and in a short one. The difference
//! is the cost of the requests, without the start and the stop. `baseline.txt` has the numbers of
//! the last commit that meant to change them; `--check` fails above it.
#![expect(clippy::print_stdout, reason = "the tables are the result")]

mod baseline;
mod callgrind;
mod client;
mod idle;
mod load;
mod serve;

use crate::{
    baseline::Baseline,
    load::{LOADS, Load},
    serve::Server,
};
use std::{env, error::Error, process::ExitCode};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "lameduck-cost [--check | --save] [LOAD…]

Prints the instructions of each kind of request, and the bytes of an idle connection.

--check   only the servers on lameduck; fails if a number is 2 % above the baseline
--save    writes the numbers as the new baseline
LOAD      only these kinds of requests";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode> {
    if let [serve, server, address] = words
        && serve == "serve"
    {
        return serve::run(Server::named(server)?, address.parse()?);
    }
    let (flags, names): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|word| word.starts_with('-'));
    let is_set = |name: &str| flags.iter().any(|flag| *flag == name);
    if let Some(flag) = flags.iter().find(|flag| !["--check", "--save"].contains(&flag.as_str())) {
        return Err(format!("no such flag: {flag}\n\n{USAGE}").into());
    }
    if let Some(name) = names.iter().find(|name| LOADS.iter().all(|load| load.name != **name)) {
        return Err(format!("no such load: {name}\n\n{USAGE}").into());
    }
    let loads =
        LOADS.iter().filter(|load| names.is_empty() || names.iter().any(|n| *n == load.name));
    let mut baseline = Baseline::read()?;
    let mut costs_more = false;
    println!("| | on lameduck | before | without | on lameduck ÷ without |");
    println!("|---|---:|---:|---:|---:|");
    for load in loads {
        let cost = baseline.lowest(load.name, || callgrind::instructions(load.on, load))?;
        let without = if is_set("--check") { None } else { Some(without(load)?) };
        costs_more |= baseline.is_exceeded(load.name, cost);
        print_row(load.what, cost, baseline.replace(load.name, cost), without);
    }
    if names.is_empty() {
        let bytes = baseline.lowest(idle::NAME, idle::bytes)?;
        costs_more |= baseline.is_exceeded(idle::NAME, bytes);
        print_row("bytes an idle connection", bytes, baseline.replace(idle::NAME, bytes), None);
    }
    if is_set("--save") {
        baseline.write()?;
    }
    if is_set("--check") && costs_more {
        println!("\nerror: a number is more than 2 % above {}", baseline::PATH);
        println!("if that is meant: lameduck-cost --save");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn without(load: &Load) -> Result<f64> {
    callgrind::instructions(load.without, load)
}

fn print_row(what: &str, cost: f64, before: Option<f64>, without: Option<f64>) {
    let text = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.0}"));
    let ratio = without.map_or(String::new(), |without| format!("{:.2}", cost / without));
    println!("| {what} | {cost:.0} | {} | {} | {ratio} |", text(before), text(without));
}
