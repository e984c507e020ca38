//! P5a: busy clients during a whole shutdown, over connections with latency. No request may be
//! lost.
//!
//! The clients follow the rules of HTTP, and know only what the server sends. Latency makes this
//! hard: a request takes some time to arrive, and so does the announcement that the server closes.

use super::{
    help::{MAX_WAIT, binary, ms},
    service::Service,
};
use crate::support::Stalls;
use lameduck_check::load::{Habit, Load, Wire, run};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    ops::RangeInclusive,
    process::ExitStatus,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};

const CLIENTS: usize = 20;

/// One shutdown under the load of twenty busy clients.
async fn loses_nothing(latency: RangeInclusive<Duration>, habit: Habit, lame_duck: &str) {
    for _ in 0..5 {
        let stalls = Stalls::watch();
        let (load, status, report) = shut_down(latency.clone(), habit, lame_duck).await;
        if load.totals.lost() > 0 && stalls.delay_clients() {
            continue;
        }
        let line = load.totals.line();
        assert_eq!(load.totals.lost(), 0, "{line}\n{}\n{report:#}", load.totals.stories());
        assert_eq!(load.totals.refused_by_status.load(Relaxed), 0, "{line}\n{report:#}");
        assert_eq!(status.code(), Some(0), "{report:#}");
        assert_eq!(report["requests"]["aborted"], 0, "{report:#}");
        return;
    }
    panic!("each of five rounds was too slow");
}

async fn shut_down(
    latency: RangeInclusive<Duration>,
    habit: Habit,
    lame_duck: &str,
) -> (Arc<Load>, ExitStatus, Value) {
    let mut service =
        Service::start(binary(), &["--drill", "--lame-duck", lame_duck, "--workers", "2"]).unwrap();
    let load = Arc::new(Load::new(Wire::new(service.main, latency), "/slow?ms=3"));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(run(load.clone(), habit));
    }
    // Waits until each client has been served a few times.
    while load.totals.answered() < 5 * CLIENTS as u64 {
        sleep(ms(5)).await;
    }
    service.signal(Signal::TERM).unwrap();
    let (service, status) = tokio::task::spawn_blocking(move || {
        let status = service.wait(MAX_WAIT);
        (service, status)
    })
    .await
    .unwrap();
    load.over.store(true, Relaxed);
    clients.join_all().await;
    (load, status.unwrap(), service.report().unwrap())
}

/// Several shutdowns, two at a time.
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

/// A service in a container, without the privilege to attach the filter that keeps new connections
/// out.
#[cfg(target_os = "linux")]
#[test]
fn busy_clients_of_a_process_without_privilege_lose_nothing() {
    use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
    // Processes that this thread starts cannot have the capability. A thread that may not drop it
    // does not have it.
    let _ = remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN);
    several_lose_nothing(1..=3);
}
