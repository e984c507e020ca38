//! The measures. Each takes one sample of one server: a few named numbers.

use crate::{
    Result, draining, grpc, h2load, idle, instructions, last_response,
    options::Options,
    peer::{Peer, Speaks},
    perf, runtimes, slopes, start, wrk,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Numbers of one round of one server.
pub type Sample = BTreeMap<String, f64>;

pub struct Measure {
    pub name: &'static str,
    /// More rounds than this are not worth their time.
    pub rounds_max: usize,
    pub suits: fn(&Peer) -> bool,
    pub take: fn(&'static Peer, &Options) -> Result<Sample>,
}

/// All measures, in the order of the run.
pub const MEASURES: [Measure; 22] = [
    Measure { name: "load", rounds_max: usize::MAX, suits: any, take: wrk::many },
    Measure {
        name: "sampled",
        rounds_max: usize::MAX,
        suits: |peer| any(peer) && perf::works(),
        take: perf::take,
    },
    Measure { name: "one", rounds_max: usize::MAX, suits: any, take: wrk::one },
    Measure { name: "pipelined", rounds_max: usize::MAX, suits: parses, take: wrk::pipelined },
    Measure {
        name: "http2",
        rounds_max: usize::MAX,
        suits: |peer| any(peer) && peer.http2,
        take: h2load::streams,
    },
    Measure { name: "start", rounds_max: usize::MAX, suits: any, take: start::first_response },
    Measure { name: "idle", rounds_max: usize::MAX, suits: any, take: idle::served_once },
    Measure { name: "byteless", rounds_max: 1, suits: any, take: idle::byteless },
    Measure {
        name: "last_response",
        rounds_max: usize::MAX,
        suits: |peer| any(peer) && peer.drains,
        take: last_response::take,
    },
    Measure {
        name: "draining",
        rounds_max: usize::MAX,
        suits: parses,
        take: draining::with_new_connections,
    },
    Measure {
        name: "draining_kept",
        rounds_max: 3,
        suits: parses,
        take: draining::with_kept_connections,
    },
    Measure { name: "slopes", rounds_max: 1, suits: slopes::suits, take: slopes::connections },
    Measure {
        name: "workers",
        rounds_max: 1,
        suits: |peer| peer.name == "lameduck",
        take: slopes::workers,
    },
    Measure {
        name: "uniform",
        rounds_max: usize::MAX,
        suits: runtimes::suits,
        take: runtimes::uniform,
    },
    Measure {
        name: "skewed",
        rounds_max: usize::MAX,
        suits: runtimes::suits,
        take: runtimes::skewed,
    },
    Measure {
        name: "few_http2",
        rounds_max: usize::MAX,
        suits: runtimes::suits,
        take: runtimes::few,
    },
    Measure {
        name: "blocked",
        rounds_max: usize::MAX,
        suits: runtimes::suits,
        take: runtimes::blocked,
    },
    Measure { name: "instructions", rounds_max: 1, suits: any, take: instructions::take },
    Measure { name: "tls", rounds_max: usize::MAX, suits: tls, take: wrk::many },
    Measure { name: "handshakes", rounds_max: usize::MAX, suits: tls, take: wrk::handshakes },
    Measure { name: "tls_idle", rounds_max: 3, suits: tls, take: idle::served_once },
    Measure {
        name: "grpc",
        rounds_max: usize::MAX,
        suits: |peer| peer.speaks == Speaks::Grpc,
        take: grpc::calls,
    },
];

/// Returns whether the server speaks HTTP without TLS. `lameduck_tokio` is compared with two
/// workers only.
fn any(peer: &Peer) -> bool {
    peer.speaks == Speaks::Http && peer.name != "lameduck_tokio"
}

fn tls(peer: &Peer) -> bool {
    peer.speaks == Speaks::Tls
}

/// Returns whether the server parses requests. The floor sends one response per read, not per
/// request.
fn parses(peer: &Peer) -> bool {
    any(peer) && peer.name != "floor"
}

/// Returns a sample of these numbers.
pub fn sample<const N: usize>(numbers: [(&str, f64); N]) -> Sample {
    numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}

/// Returns for each number its median, its spread (maximum minus minimum, relative to the median),
/// and its values in the order of the rounds.
pub fn summary(samples: &[Sample]) -> Value {
    let names =
        samples.iter().flat_map(|sample| sample.keys()).collect::<std::collections::BTreeSet<_>>();
    let of = |name: &String| {
        let rounds: Vec<f64> =
            samples.iter().filter_map(|sample| sample.get(name).copied()).collect();
        let (least, most) = rounds
            .iter()
            .fold((f64::MAX, f64::MIN), |(least, most), n| (least.min(*n), most.max(*n)));
        let middle = median_of(&rounds);
        let spread = if middle > 0.0 { (most - least) / middle } else { 0.0 };
        json!({ "median": middle, "spread": spread, "rounds": rounds })
    };
    names.into_iter().map(|name| (name.clone(), of(name))).collect::<serde_json::Map<_, _>>().into()
}

/// Returns the median.
pub fn median_of(numbers: &[f64]) -> f64 {
    percentile(numbers, 0.5)
}

/// Returns the percentile `part` (between 0 and 1) of the numbers; 0 if there are none.
pub fn percentile(numbers: &[f64], part: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * part) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
