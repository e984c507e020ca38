//! P17: scenarios that exploration found are replayed in every run. Drawn scenarios keep every
//! promise and give the same trace in every thread and process.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

use lameduck_sim::{
    Case,
    draw::draw,
    explore::{Exploration, Network, examine, play_on, quiet_panics},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
    thread,
};

fn corpus() -> Vec<(PathBuf, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), Case::read(&path).unwrap())).collect()
}

#[test]
fn every_scenario_of_the_corpus_keeps_every_promise_on_both_networks() {
    quiet_panics();
    let corpus = corpus();
    assert!(corpus.len() >= 14);
    for (path, case) in corpus {
        assert!(
            case.description.len() > 80,
            "{}: a scenario is kept with its story",
            path.display()
        );
        for network in [Network::TurmoilNet, Network::Turmoil] {
            let broken = examine(play_on(network), &case.scenario).broken;
            assert_eq!(broken, [], "{} on {}", path.display(), network.name());
        }
    }
}

#[test]
fn some_seeds_explored_on_both_networks_keep_every_promise() {
    for (network, count) in [(Network::TurmoilNet, 400), (Network::Turmoil, 30)] {
        let never = AtomicBool::new(false);
        let summary = Exploration::new(play_on(network), 0..count, &never).run();
        let found: Vec<_> = summary.found.iter().map(|found| (found.seed, &found.broken)).collect();
        assert!(found.is_empty(), "{}: {found:?}", network.name());
        assert_eq!(summary.scenarios, count);
        assert!(summary.replayed > 0 && summary.is_good());
    }
}

#[test]
fn a_drawn_scenario_goes_the_same_way_on_a_fresh_thread() {
    quiet_panics();
    for (network, seeds) in [(Network::TurmoilNet, 0..100), (Network::Turmoil, 0..8)] {
        for scenario in seeds.map(draw) {
            let hash = || examine(play_on(network), &scenario).hash;
            let here = hash();
            let there = thread::scope(|scope| scope.spawn(hash).join().unwrap());
            assert_eq!(here, there, "{} on {}", scenario.about, network.name());
        }
    }
}

/// Returns the trace of a seed, as printed by another process.
fn told(seed: u64, network: Network) -> Vec<u8> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_lameduck-sim"));
    process.args(["--seed", &seed.to_string(), "--trace", "--network", network.name()]);
    process.output().unwrap().stdout
}

#[test]
fn a_drawn_scenario_goes_the_same_way_in_another_process_byte_for_byte() {
    quiet_panics();
    let mut all = Vec::new();
    for (network, seeds) in [(Network::TurmoilNet, 0..12), (Network::Turmoil, 0..4)] {
        for seed in seeds {
            let examined = examine(play_on(network), &draw(seed));
            let here =
                format!("{}trace {:016x}\n", examined.outcome.unwrap().trace.text(), examined.hash);
            let there = String::from_utf8(told(seed, network)).unwrap();
            assert_eq!(here, there, "seed {seed} on {}", network.name());
            all.push(there);
        }
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "different seeds must differ");
}
