//! `just soak`: restarts the real binary repeatedly under constant load.
//!
//! Every restart has a signal, a lame duck phase, a drain, an exit, and a successor on the same
//! port, by one of three ways. Clients follow the rules of HTTP. At the end it prints the requests
//! that got a response, those refused before they were sent (which could go elsewhere), and those
//! lost.
#![expect(clippy::disallowed_methods, reason = "a harness outside the host: it lives in real time")]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "a command whose output is its purpose"
)]

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lameduck_soak::{
    client::{Habit, Load, run},
    hand_over::{HandOver, Relay},
    wire::Wire,
};
use std::{
    io, path::PathBuf, process::ExitCode, sync::Arc, sync::atomic::Ordering::Relaxed,
    time::Duration,
};

/// Restarts the service under load and counts what was lost.
#[derive(Debug, Parser)]
struct Args {
    /// Number of restarts
    #[arg(long, default_value_t = 20)]
    restarts: u64,
    /// Number of busy clients with persistent connections; the same number opens a connection for
    /// every request
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Maximum one-way latency in milliseconds; each connection draws its own
    #[arg(long, default_value_t = 3)]
    latency: u64,
    /// Milliseconds of load before each signal. The kernel retries a dropped SYN after a second;
    /// below that most clients are still waiting
    #[arg(long, default_value_t = 1_300)]
    every: u64,
    /// Lame duck delay
    #[arg(long, default_value = "300ms")]
    lame_duck: String,
    /// How one process hands over to the next: `restart` (the old one exits, then the new one
    /// starts), `socket` (the same, with a socket that stays with its holder) or `reuse-port` (the
    /// new one starts beside the old one).
    #[arg(long, default_value = "restart")]
    hand_over: HandOver,
    /// Path of the service binary
    #[arg(long, default_value = "target/release/lameduck")]
    binary: PathBuf,
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let flags = ["--drill", "--lame-duck", &args.lame_duck];
    let mut relay = Relay::start(args.hand_over, args.binary.clone(), &flags)?;
    let address = relay.address;
    let wire = Wire::new(address, Duration::ZERO..=Duration::from_millis(args.latency));
    let load = Arc::new(Load::new(wire, "/slow?ms=3"));
    let clients: Vec<_> = [Habit::KeepAlive, Habit::PerRequest]
        .into_iter()
        .flat_map(|habit| std::iter::repeat_n(habit, args.clients))
        .map(|habit| tokio::spawn(run(load.clone(), habit)))
        .collect();
    let bar = ProgressBar::new(args.restarts);
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:40} {pos}/{len} restarts, {elapsed} of {duration}: {msg}",
    ) {
        bar.set_style(style);
    }
    let mut unclean = 0;
    for _ in 0..args.restarts {
        tokio::time::sleep(Duration::from_millis(args.every)).await;
        let (passed, result) = tokio::task::spawn_blocking(move || {
            let result = relay.pass_on();
            (relay, result)
        })
        .await
        .map_err(io::Error::other)?;
        relay = passed;
        if !result?.0.success() {
            unclean += 1;
        }
        bar.set_message(load.totals.line());
        bar.inc(1);
    }
    load.over.store(true, Relaxed);
    for client in clients {
        let _ = client.await;
    }
    bar.finish_and_clear();
    println!("{} restarts: {}; {unclean} exits were not clean", args.restarts, load.totals.line());
    println!("{}", load.totals.stories());
    drop(relay);
    let may_refuse = args.hand_over == HandOver::Restart;
    let refused = if may_refuse { 0 } else { load.totals.refused.load(Relaxed) };
    Ok(if load.totals.lost() == 0 && refused == 0 && unclean == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
