//! `just rollout`: rolling restarts of servers of real balancers, under constant load. Exits with 0
//! only if no request failed.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "a command whose output is its purpose"
)]

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lameduck_soak::{
    balancer::Kind,
    rollout::{Outcome, Plan, roll},
};
use std::{io, path::PathBuf, process::ExitCode, time::Duration};

/// Puts HAProxy and nginx in front of three processes, restarts each in turn, and counts what
/// failed.
#[derive(Debug, Parser)]
struct Args {
    /// Balancer to test
    #[arg(long, value_enum, default_value = "both")]
    behind: Behind,
    /// Minimum number of restarts per balancer
    #[arg(long, default_value_t = 30)]
    restarts: u64,
    /// Minimum number of responses per balancer
    #[arg(long, default_value_t = 100_000)]
    answers: u64,
    /// Clients with persistent connections
    #[arg(long, default_value_t = 24)]
    keeping: usize,
    /// Clients that open a connection for every request
    #[arg(long, default_value_t = 8)]
    per_request: usize,
    /// Lame duck delay; with 0s requests must fail behind HAProxy
    #[arg(long, default_value = "500ms")]
    lame_duck: String,
    /// Time limit per balancer in minutes
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Path of the service binary
    #[arg(long, default_value = "target/release/lameduck")]
    binary: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Behind {
    Haproxy,
    Nginx,
    Both,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let kinds: &[Kind] = match args.behind {
        Behind::Haproxy => &[Kind::Haproxy],
        Behind::Nginx => &[Kind::Nginx],
        Behind::Both => &[Kind::Haproxy, Kind::Nginx],
    };
    let mut outcomes = Vec::new();
    for kind in kinds {
        outcomes.push((*kind, one(*kind, &args).await?));
    }
    println!("balancer   restarts  responses     failed   requests/s   unclean exits");
    for (kind, outcome) in &outcomes {
        println!(
            "{:<8} {:>10} {:>10} {:>10} {:>12.0} {:>15}",
            kind.name(),
            outcome.restarts,
            outcome.answered,
            outcome.failed,
            outcome.rate(),
            outcome.unclean_exits
        );
    }
    for story in outcomes.iter().flat_map(|(_, outcome)| &outcome.stories) {
        println!("{story}");
    }
    let is_enough =
        |outcome: &Outcome| outcome.restarts >= args.restarts && outcome.answered >= args.answers;
    let is_perfect = outcomes.iter().all(|(_, outcome)| outcome.is_perfect() && is_enough(outcome));
    Ok(if is_perfect { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(kind: Kind, args: &Args) -> io::Result<Outcome> {
    let plan = Plan {
        kind,
        binary: args.binary.clone(),
        lame_duck: args.lame_duck.clone(),
        keeping: args.keeping,
        per_request: args.per_request,
        restarts_min: args.restarts,
        answers_min: args.answers,
        span_max: Duration::from_secs(60 * args.minutes),
    };
    let bar = ProgressBar::new(args.restarts);
    if let Ok(style) = ProgressStyle::with_template(
        "{prefix:8} {bar:30} {pos}/{len} restarts, {elapsed} of {duration}: {msg}",
    ) {
        bar.set_style(style);
    }
    bar.set_prefix(kind.name());
    let outcome = roll(&plan, |progress| {
        // Once the restarts are done, it continues until there are enough responses.
        bar.set_length(args.restarts.max(progress.restarts));
        bar.set_position(progress.restarts);
        bar.set_message(format!("{} responses, {} failed", progress.answered, progress.failed));
    })
    .await;
    bar.finish_and_clear();
    outcome
}
