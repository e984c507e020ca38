//! What is drawn for one play of a deploy.

use crate::{
    draw::Dice,
    scenario::{DownstreamFault, Fault, Request},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One play of a deploy: its clients and faults. Everything else belongs to the test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployScenario {
    /// Seed of all randomness.
    pub seed: u64,
    /// Shortest and longest one-way latency.
    pub latency_ms: (u64, u64),
    /// Time from the first requests to the start of the deploy.
    pub begins_ms: u64,
    /// The clients.
    pub clients: Vec<DeployClient>,
    /// Faults of the downstreams, whose times are counted from the first requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A client. It sends its request repeatedly until the deploy has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployClient {
    /// When it begins.
    pub at_ms: u64,
    /// Pause between a response and the next request.
    pub every_ms: u64,
    /// What it sends.
    pub request: Request,
    /// Whether it keeps its connection for the next request.
    pub keeps_connection: bool,
    /// Whether it sends a failed request again.
    pub retries: Retries,
}

/// Whether a client sends a failed request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retries {
    /// Never.
    Never,
    /// Up to five times, what may be sent again: a request that was not sent, or that is idempotent
    /// by its method or its idempotency key.
    Allowed,
}

/// Clients of each request.
const CLIENTS_OF_EACH: u64 = 3;
/// Fewest clients.
const CLIENTS_MIN: u64 = 4;

impl DeployScenario {
    /// Draws the scenario of a seed without faults. `requests` must not be empty.
    pub(super) fn draw(seed: u64, requests: &[Request]) -> Self {
        let dice = &mut Dice::of_deploys(seed);
        let latency_min = dice.pick(&[1, 1, 2, 5]);
        let count = CLIENTS_MIN.max(CLIENTS_OF_EACH * requests.len() as u64);
        let clients = requests.iter().cycle().zip(0..count).map(|(request, n)| DeployClient {
            at_ms: dice.below(200),
            every_ms: dice.pick(&[20, 50, 100, 200]),
            request: request.clone(),
            keeps_connection: !dice.one_in(3),
            retries: if n.is_multiple_of(2) { Retries::Never } else { Retries::Allowed },
        });
        Self {
            seed,
            clients: clients.collect(),
            begins_ms: 500 + dice.below(500),
            latency_ms: (latency_min, latency_min + dice.pick(&[0, 2, 10])),
            faults: Vec::new(),
        }
    }

    /// Adds faults of the downstreams for half of the seeds, at some time in a deploy of about this
    /// length.
    pub(super) fn with_faults(mut self, length: Duration) -> Self {
        let dice = &mut Dice::of_downstreams(self.seed);
        let latest_ms = self.begins_ms + u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 2);
        let count = dice.pick(&[0, 0, 2, 4]);
        self.faults = (0..count)
            .map(|_| Fault::Downstream {
                downstream: dice.below(12),
                at_ms: dice.between(self.begins_ms, latest_ms),
                for_ms: dice.pick(&[1, 20, 300, 3_000]),
                how: dice.pick(&DownstreamFault::ALL),
            })
            .collect();
        self
    }

    /// Returns the scenarios that are one step simpler, the largest steps first.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let mut simpler = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut candidate = self.clone();
            change(&mut candidate);
            if candidate != *self {
                simpler.push(candidate);
            }
        };
        if self.clients.len() > 2 {
            let half = self.clients.len() / 2;
            add(&|scenario| scenario.clients.truncate(half));
            add(&|scenario| drop(scenario.clients.drain(..half)));
        }
        for n in 0..self.clients.len() {
            if self.clients.len() > 1 {
                add(&|scenario| drop(scenario.clients.remove(n)));
            }
        }
        for n in 0..self.faults.len() {
            add(&|scenario| {
                let _ = scenario.faults.remove(n);
            });
        }
        add(&|scenario| scenario.latency_ms = (1, 1));
        for n in 0..self.clients.len() {
            add(&|scenario| scenario.clients[n].every_ms = scenario.clients[n].every_ms.max(200));
        }
        simpler
    }
}
