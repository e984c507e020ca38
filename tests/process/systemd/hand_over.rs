//! P5a: restarts on one host without a balancer, under load. No request may be lost, and no
//! connection refused.
//!
//! `lameduck-check soak --hand-over …` does the same for any time.

use crate::support::{Stalls, in_time, wire};
use lameduck_check::{
    load::{Habit, Load, Wire, run},
    restarts::{Ended, HandOver, Relay},
    target::Target,
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinSet};

const CLIENTS: usize = 8;
const ROUNDS: usize = 5;

/// Restarts several times under the load of busy clients a few milliseconds away.
fn loses_nothing(hand_over: HandOver) -> Relay {
    in_time(|| {
        let stalls = Stalls::watch();
        let (relay, load) = restarts(hand_over);
        let totals = &load.totals;
        if totals.lost() > 0 && stalls.delay_clients() {
            return None;
        }
        assert_eq!(totals.lost(), 0, "{}\n{}", totals.line(), totals.stories());
        let refused = (totals.refused.load(Relaxed), totals.refused_by_status.load(Relaxed));
        assert_eq!(refused, (0, 0), "{}", totals.line());
        Some(relay)
    })
}

fn restarts(hand_over: HandOver) -> (Relay, Arc<Load>) {
    let mut command = vec![
        env!("CARGO_BIN_EXE_lameduck"),
        "--drill",
        "--lame-duck=200ms",
        "--workers=2",
        "--addr=127.0.0.1:{port}",
        "--internal-addr=127.0.0.1:{port2}",
    ];
    if hand_over == HandOver::ReusePort {
        command.push("--reuse-port");
    }
    let mut target = Target::new(command.into_iter().map(str::to_owned).collect());
    target.ready = Some("http://127.0.0.1:{port2}/readiness".to_owned());
    let relay = Relay::start(target, hand_over).unwrap();
    let wire = Wire::new(relay.address(), Duration::from_millis(1)..=Duration::from_millis(3));
    let load = Arc::new(Load::new(wire, "/slow?ms=3"));
    Runtime::new().unwrap().block_on(async {
        let mut clients = JoinSet::new();
        for habit in [Habit::KeepAlive, Habit::PerRequest] {
            for _ in 0..CLIENTS {
                clients.spawn(run(load.clone(), habit));
            }
        }
        let mut relay = relay;
        for round in 0..ROUNDS {
            // Waits until this process has served each client a few times.
            let served = load.totals.answered() + 10 * CLIENTS as u64;
            crate::support::until_holds("answers", || load.totals.answered() >= served);
            let (ended, passed) = tokio::task::block_in_place(|| relay.pass_on(&load));
            assert_eq!(passed, Ok(()), "round {round}");
            assert!(ended.as_ref().is_some_and(Ended::is_clean), "round {round}: {ended:?}");
        }
        load.over.store(true, Relaxed);
        clients.join_all().await;
        (relay, load)
    })
}

#[test]
fn a_socket_that_stays_with_its_holder_loses_and_refuses_nothing() {
    let relay = loses_nothing(HandOver::Socket);
    let address = relay.address();
    assert_eq!(wire::get(address, "/").status, 200);
    // The socket still accepts connections without a server: no filter is left on it.
    let held = relay.held().unwrap().try_clone().unwrap();
    drop(relay);
    drop(wire::Client::try_connect(address).unwrap());
    drop(held);
}

#[test]
fn a_new_process_that_shares_the_port_of_the_old_one_loses_and_refuses_nothing() {
    loses_nothing(HandOver::ReusePort);
}
