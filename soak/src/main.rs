//! `just soak`: the real binary, restarted again and again under constant load.
//!
//! Every restart: signal, lame duck, drain, exit, and a successor on the same port. Clients follow the rules of HTTP. At the
//! end: what was answered, what was refused before being sent (and could go elsewhere), and what was lost.
#![expect(clippy::disallowed_methods, reason = "a harness outside the host: it lives in real time")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "a command whose output is its purpose")]

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lameduck_soak::{
    client::{Habit, Load, run},
    process::Service,
    wire::Wire,
};
use rustix::process::Signal;
use std::{io, path::PathBuf, process::ExitCode, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

/// Restarts the service under load and counts what was lost.
#[derive(Debug, Parser)]
struct Args {
    /// How often.
    #[arg(long, default_value_t = 20)]
    restarts: u64,
    /// Busy clients with a kept connection; as many again take a new one for every request.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// One-way latency in milliseconds, the most; each connection draws its own.
    #[arg(long, default_value_t = 3)]
    latency: u64,
    /// Milliseconds of load before each signal. A connect that was kept out is tried again after a second, so less than that
    /// finds most clients waiting.
    #[arg(long, default_value_t = 1_300)]
    every: u64,
    /// Lame duck delay.
    #[arg(long, default_value = "300ms")]
    lame_duck: String,
    /// The service's binary.
    #[arg(long, default_value = "target/release/lameduck")]
    binary: PathBuf,
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let flags = ["--drill", "--lame-duck", &args.lame_duck];
    let mut service = Service::start(&args.binary, &flags)?;
    let address = service.main;
    let wire = Wire::new(address, Duration::ZERO..=Duration::from_millis(args.latency));
    let load = Arc::new(Load::new(wire, "/slow?ms=3"));
    let clients: Vec<_> = [Habit::KeepAlive, Habit::PerRequest]
        .into_iter()
        .flat_map(|habit| std::iter::repeat_n(habit, args.clients))
        .map(|habit| tokio::spawn(run(load.clone(), habit)))
        .collect();
    let bar = ProgressBar::new(args.restarts);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} restarts, {elapsed} of {duration}: {msg}") {
        bar.set_style(style);
    }
    let mut unclean = 0;
    for _ in 0..args.restarts {
        tokio::time::sleep(Duration::from_millis(args.every)).await;
        service.signal(Signal::TERM)?;
        let (stopped, status) = tokio::task::spawn_blocking(move || {
            let status = service.wait(Duration::from_secs(40));
            (service, status)
        })
        .await
        .map_err(io::Error::other)?;
        if !status?.success() {
            unclean += 1;
        }
        drop(stopped);
        service = Service::start_on(&args.binary, &address.to_string(), &flags)?;
        bar.set_message(load.tally.line());
        bar.inc(1);
    }
    load.over.store(true, Relaxed);
    for client in clients {
        let _ = client.await;
    }
    bar.finish_and_clear();
    println!("{} restarts: {}; {unclean} exits were not clean", args.restarts, load.tally.line());
    println!("{}", load.tally.stories());
    drop(service);
    Ok(if load.tally.lost() == 0 && unclean == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
