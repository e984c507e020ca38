//! P5a: busy clients through a whole shutdown, over wires with latency: not one request lost.
//!
//! The clients follow the rules of HTTP, and no more: what the server does not tell them they do
//! not know. Latency is what makes it hard. A request is under way for as long as the wire is long,
//! and so is the news that the server closes.

use super::help::{PATIENCE, binary, ms};
use lameduck_soak::{
    client::{Habit, Load, run},
    process::Service,
    wire::Wire,
};
use rustix::process::Signal;
use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};

const CLIENTS: usize = 20;

/// One shutdown under the load of twenty busy clients.
async fn loses_nothing(latency: RangeInclusive<Duration>, habit: Habit, lame_duck: &str) {
    let mut service =
        Service::start(binary(), &["--drill", "--lame-duck", lame_duck, "--workers", "2"]).unwrap();
    let load = Arc::new(Load::new(Wire::new(service.main, latency), "/slow?ms=3"));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(run(load.clone(), habit));
    }
    // Until each has been served a few times.
    while load.totals.answered() < 5 * CLIENTS as u64 {
        sleep(ms(5)).await;
    }
    service.signal(Signal::TERM).unwrap();
    let (service, status) = tokio::task::spawn_blocking(move || {
        let status = service.wait(PATIENCE);
        (service, status)
    })
    .await
    .unwrap();
    load.over.store(true, Relaxed);
    clients.join_all().await;
    let report = service.report().unwrap();
    assert_eq!(
        load.totals.lost(),
        0,
        "{}\n{}\n{report:#}",
        load.totals.line(),
        load.totals.stories()
    );
    assert_eq!(
        load.totals.refused_by_status.load(Relaxed),
        0,
        "{}\n{report:#}",
        load.totals.line()
    );
    assert_eq!(status.unwrap().code(), Some(0), "{report:#}");
    assert_eq!(report["requests"]["aborted"], 0, "{report:#}");
}

/// Several shutdowns, some of them at the same time.
fn several_lose_nothing(latency: RangeInclusive<u64>) {
    let latency = ms(*latency.start())..=ms(*latency.end());
    Runtime::new().unwrap().block_on(async {
        for lame_duck in ["0s", "300ms", "0s"] {
            tokio::join!(
                loses_nothing(latency.clone(), Habit::KeepAlive, lame_duck),
                loses_nothing(latency.clone(), Habit::PerRequest, lame_duck),
            );
        }
    });
}

#[test]
fn busy_clients_one_to_three_milliseconds_away_lose_nothing() {
    several_lose_nothing(1..=3);
}

#[test]
fn busy_clients_ten_milliseconds_away_lose_nothing() {
    several_lose_nothing(10..=10);
}

#[test]
fn busy_clients_twenty_milliseconds_away_lose_nothing() {
    several_lose_nothing(20..=20);
}

#[test]
fn busy_clients_forty_milliseconds_away_lose_nothing() {
    several_lose_nothing(40..=40);
}

/// A service in a container, where no filter keeps newcomers out of a listener.
#[cfg(target_os = "linux")]
#[test]
fn busy_clients_of_a_process_without_privilege_lose_nothing() {
    use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
    // What this thread starts cannot have it. Who may not even give it up has not got it.
    let _ = remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN);
    several_lose_nothing(1..=3);
}
