//! How faithful the simulation is: the same scenarios on the simulated network and on Linux, and
//! whether every client saw the same.
//!
//! Two events that are near each other may happen in another order on a busy machine. So each
//! scenario is simulated again many times, with its events moved by up to [`NEAR_MS`], each on its
//! own, and with other random choices. If no client sees a difference in any of these variants, the
//! events that decide lie apart, and Linux must show the same. Otherwise what Linux shows must be
//! among what the variants show.

use crate::{
    draw::{LARGER_THAN_THE_BUFFERS, draw_apart},
    explore::quiet_panics,
    network::TurmoilNetWorld,
    scenario::{
        Client, Outcome, RareRequest, RequestKind, Scenario, Time, TimeOf, Traffic, run,
        run_while_void, times,
    },
    trace::{Record, Trace},
};
use lameduck::runtime::Seed;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Events that are further apart than this keep their order on any machine that is not stalled.
pub const NEAR_MS: u64 = 50;

/// How long after the exit what clients see still counts: the last bytes are on their way.
const LAST_BYTES: Duration = Duration::from_millis(200);

const NEAR: Duration = Duration::from_millis(NEAR_MS);

/// Requests one after the other whose delays on the machine add up to no more than that.
const CHAIN_MAX: u64 = 8;

/// Number of variants in which the times are moved.
const VARIANTS: u64 = 48;

/// Least share of scenarios whose decisive events lie apart, in percent.
const APART_LEAST: u64 = 60;

/// Least share of scenarios in which Linux shows what the simulation shows, in percent.
const SAME_LEAST: u64 = 99;

/// What the clients of a run saw: the outcome of each request and the end of each connection.
///
/// The keys name the client and the request or the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    seen: BTreeMap<String, Observation>,
    /// Places where it is a matter of a few milliseconds whether something is seen.
    unsure: BTreeSet<String>,
    exit: Duration,
}

/// What a client saw, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Observation {
    text: String,
    at: Duration,
}

impl Ends {
    /// Reads them from the trace of a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario, trace: &Trace) -> Self {
        let exit = trace.events("exit").first().map_or(Duration::MAX, |exit| exit.at);
        let mut ends = Self { exit, ..Self::default() };
        let over = exit.saturating_add(LAST_BYTES);
        let stalled = trace.events("stall ends");
        for record in trace.records() {
            let Some(client) = compared(scenario, &record.actor) else { continue };
            let number = |name| record.number(name).unwrap_or_default();
            let text = |name| record.text(name).unwrap_or_default();
            let (place, end) = match record.event {
                "completed" | "failed" if depends_on_the_machine(client, &record, &stalled) => {
                    continue;
                }
                "completed" => (
                    format!("request {}", number("request")),
                    format!("{} with {} bytes", number("status"), number("body_bytes")),
                ),
                "failed" => (
                    format!("request {}", number("request")),
                    format!("{} after {} bytes", how_failed(text("how")), number("answer_bytes")),
                ),
                "stall ends" => (format!("stall {}", number("of")), text("how").to_owned()),
                "closed idle" | "ended" => (
                    format!("connection {}", number("connection")),
                    format!("{} after {} bytes", text("how"), number("answer_bytes")),
                ),
                "connect failed" => ("connect".to_owned(), text("how").to_owned()),
                _ => continue,
            };
            let place = format!("{} {place}", record.actor);
            let until = if record.event == "connect failed" { exit } else { over };
            if record.at.abs_diff(until) <= NEAR {
                ends.unsure.insert(place.clone());
            }
            if record.at <= until {
                ends.seen.insert(place, Observation { text: end, at: record.at });
            }
        }
        ends
    }

    /// Returns where two runs differ: the place, and what each shows. Neither shows what a client
    /// would have seen after its exit.
    fn differences(&self, other: &Self) -> Vec<Difference> {
        let places: BTreeSet<&String> = self.seen.keys().chain(other.seen.keys()).collect();
        let show = |ends: &Self, place: &String| {
            ends.text(place).map_or_else(|| "nothing".to_owned(), str::to_owned)
        };
        places
            .into_iter()
            .filter(|place| !self.unsure.contains(*place) && !other.unsure.contains(*place))
            .filter(|place| self.text(place) != other.text(place))
            .filter(|place| !self.is_too_late(place, other) && !other.is_too_late(place, self))
            .map(|place| Difference {
                place: place.clone(),
                simulated: show(self, place),
                linux: show(other, place),
            })
            .collect()
    }

    fn text(&self, place: &str) -> Option<&str> {
        Some(&*self.seen.get(place)?.text)
    }

    /// How it ended there. After how many bytes it was cut is a matter of milliseconds.
    fn kind(&self, place: &str) -> Option<String> {
        Some(self.text(place)?.split(" after ").next()?.to_owned())
    }

    /// Whether only the other run shows something there, and that after the exit of this run.
    fn is_too_late(&self, place: &str, other: &Self) -> bool {
        let is_late = |seen: &Observation| seen.at + NEAR >= self.exit;
        !self.seen.contains_key(place) && other.seen.get(place).is_some_and(is_late)
    }
}

/// How a request failed. A cut response of HTTP/2 ends with its stream or with its connection,
/// whichever its client reads first.
fn how_failed(how: &str) -> &str {
    if how == "body-cut" { "stream-reset" } else { how }
}

/// Whether the end of a request depends on how fast the machine is, or on chance.
fn depends_on_the_machine(client: &Client, record: &Record, stalled: &[Record]) -> bool {
    let request = record.number("request").unwrap_or_default();
    // The delays of many requests one after the other add up to more than `NEAR`.
    let is_chain = matches!(client.traffic, Traffic::KeepAlive { .. } | Traffic::PerRequest { .. });
    if client.kinds().any(is_spread) || (is_chain && request >= CHAIN_MAX) {
        return true;
    }
    // An RST discards what the simulated receiver has not read, and Linux's not. A response that
    // fits into no buffer takes as long as the machine needs to move it.
    let fits_into_no_buffer =
        matches!(client.request_kind, RequestKind::Bytes(LARGER_THAN_THE_BUFFERS..));
    stalled.iter().any(|stall| {
        let is_of_request =
            stall.actor == record.actor && stall.number("of").is_some_and(|first| request >= first);
        let how = stall.text("how");
        is_of_request && (how == Some("reset") || (how == Some("in time") && fits_into_no_buffer))
    })
}

/// Whether the shutdown ends these responses at moments that are spread by chance, or after as many
/// events as there was time for.
const fn is_spread(kind: &RequestKind) -> bool {
    matches!(
        kind,
        RequestKind::Events
            | RequestKind::Rare(
                RareRequest::LongStream | RareRequest::EndAtCancel | RareRequest::StreamWork(_)
            )
    )
}

/// Returns a client whose ends can be compared. Of many strangers on the internal port the first
/// ones have to go, and which of them are the first depends on the machine; so does how many resets
/// of streams the host reads at once, and whether what follows the last piece of a PROXY header has
/// arrived when that is read.
fn compared<'a>(scenario: &'a Scenario, actor: &str) -> Option<&'a Client> {
    let number = actor.strip_prefix("client-")?.parse::<usize>().ok()?;
    scenario.clients.get(number).filter(|client| {
        let depends = matches!(
            client.traffic,
            Traffic::InternalStrangers { .. }
                | Traffic::Http2Resets { .. }
                | Traffic::Http2GoesOn { .. }
        );
        !depends && client.header.as_ref().is_none_or(|header| header.pieces == 1)
    })
}

/// A place at which Linux shows something else than the simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The client, and its request or connection.
    pub place: String,
    /// What the simulation shows.
    pub simulated: String,
    /// What Linux shows.
    pub linux: String,
}

/// What the simulation shows of one scenario.
#[derive(Clone, Debug)]
struct Expectation {
    scenario: Scenario,
    first: Ends,
    /// How the variants end at each place.
    shown: BTreeMap<String, BTreeSet<Option<String>>>,
    /// Whether all variants show the same: the decisive events lie apart.
    is_apart: bool,
}

impl Expectation {
    fn of(scenario: Scenario) -> Self {
        let simulated =
            |scenario: &Scenario| Ends::of(scenario, &run::<TurmoilNetWorld>(scenario).trace);
        let first = simulated(&scenario);
        let others: Vec<Ends> = (1..=VARIANTS).map(|n| simulated(&moved(&scenario, n))).collect();
        let is_apart = others.iter().all(|other| first.differences(other).is_empty());
        let places: BTreeSet<&String> =
            others.iter().chain([&first]).flat_map(|ends| ends.seen.keys()).collect();
        let at =
            |place: &String| others.iter().chain([&first]).map(|ends| ends.kind(place)).collect();
        let shown = places.into_iter().map(|place| (place.clone(), at(place))).collect();
        Self { scenario, first, shown, is_apart }
    }

    /// Runs the scenario on Linux. Returns where that differs from everything that the simulation
    /// shows; `None` if in each run the machine stalled for so long that events which lie apart may
    /// have changed their order.
    fn compare(&self) -> Option<Vec<Difference>> {
        let is_void = |outcome: &Outcome| outcome.stalled > NEAR;
        let outcome = run_while_void(&self.scenario, is_void);
        if is_void(&outcome) {
            return None;
        }
        let linux = Ends::of(&self.scenario, &outcome.trace);
        let mut differences = self.first.differences(&linux);
        if !self.is_apart {
            differences.retain(|difference| {
                let found = linux.kind(&difference.place);
                !self.shown.get(&difference.place).is_some_and(|shown| shown.contains(&found))
            });
        }
        Some(differences)
    }
}

/// Returns the n-th variant. It moves either when clients begin, or how long handlers work and
/// timeouts last, or how long clients pause: each by up to [`NEAR_MS`] in either direction, the
/// sum of those that follow each other included. The phases stay where they are. The random
/// choices of the host and the network are drawn again.
fn moved(scenario: &Scenario, n: u64) -> Scenario {
    let mut scenario = scenario.clone();
    let seed = Seed(Seed(scenario.seed).nth(n));
    scenario.seed = seed.nth(0);
    for (Time { of, ms, repeats }, draw) in times(&mut scenario).into_iter().zip(1..) {
        let moves = match of {
            TimeOf::Edge => false,
            TimeOf::Begin => !n.is_multiple_of(2),
            TimeOf::Work | TimeOf::Timeout => n.is_multiple_of(4),
            TimeOf::Pause => n % 4 == 2,
        };
        let most = NEAR_MS / repeats;
        if moves && most > 0 {
            *ms = (*ms + seed.nth(draw) % (2 * most + 1)).saturating_sub(most).max(1);
        }
    }
    scenario
}

/// Does `job` for each item, on `threads` threads.
fn for_each<T: Sync>(items: &[T], threads: usize, job: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    job(item);
                }
            });
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fidelity of the simulation over many scenarios.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Scenarios that were compared.
    pub scenarios: u64,
    /// Scenarios that proved nothing because the machine stalled.
    pub void: u64,
    /// Scenarios whose decisive events lie apart.
    pub apart: u64,
    /// Of these, the ones in which Linux shows the same.
    pub apart_same: u64,
    /// Of the others, the ones in which Linux shows what the simulation shows in some order.
    pub near_same: u64,
    /// What differs, by seed.
    pub differences: Vec<(u64, bool, Vec<Difference>)>,
}

impl Report {
    /// Compares the two worlds on the scenarios of these seeds: first all of them in the
    /// simulation, `simulations` at a time, then on Linux, `runs` at a time.
    #[must_use]
    pub fn of(seeds: Range<u64>, simulations: usize, runs: usize) -> Self {
        quiet_panics();
        let seeds: Vec<u64> = seeds.collect();
        let expected = Mutex::new(BTreeMap::new());
        for_each(&seeds, simulations, |seed| {
            let expectation = Expectation::of(draw_apart(*seed));
            lock(&expected).insert(*seed, expectation);
        });
        let expected: Vec<(u64, Expectation)> =
            std::mem::take(&mut *lock(&expected)).into_iter().collect();
        let whole = Mutex::new(Self::default());
        for_each(&expected, runs, |(seed, expectation)| {
            let differences = expectation.compare();
            lock(&whole).add(*seed, expectation.is_apart, differences);
        });
        let mut whole = std::mem::take(&mut *lock(&whole));
        whole.differences.sort_by_key(|(seed, ..)| *seed);
        whole
    }

    fn add(&mut self, seed: u64, is_apart: bool, differences: Option<Vec<Difference>>) {
        let Some(differences) = differences else {
            self.void += 1;
            return;
        };
        self.scenarios += 1;
        self.apart += u64::from(is_apart);
        let same = if is_apart { &mut self.apart_same } else { &mut self.near_same };
        *same += u64::from(differences.is_empty());
        if !differences.is_empty() {
            self.differences.push((seed, is_apart, differences));
        }
    }

    /// Whether enough scenarios lie apart, and Linux shows the same in enough of both kinds.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        let near = self.scenarios - self.apart;
        self.scenarios > 0
            && self.apart * 100 >= self.scenarios * APART_LEAST
            && self.apart_same * 100 >= self.apart * SAME_LEAST
            && self.near_same * 100 >= near * SAME_LEAST
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        for (seed, is_apart, differences) in &self.differences {
            let kind = if *is_apart { "apart" } else { "near" };
            for Difference { place, simulated, linux } in differences {
                writeln!(f, "seed {seed} ({kind}): {place}: simulated {simulated}; Linux {linux}")?;
            }
        }
        let near = self.scenarios - self.apart;
        writeln!(f, "scenarios compared                          {:>6}", self.scenarios)?;
        writeln!(f, "void, because the machine stalled           {:>6}", self.void)?;
        let apart = percent(self.apart, self.scenarios);
        writeln!(
            f,
            "decisive events {NEAR_MS} ms apart                {:>6}  {apart:.1} %",
            self.apart
        )?;
        let same = percent(self.apart_same, self.apart);
        writeln!(
            f,
            "  the same on Linux                         {:>6}  {same:.1} %",
            self.apart_same
        )?;
        let same = percent(self.near_same, near);
        writeln!(f, "others                                      {near:>6}")?;
        write!(f, "  one of the simulation's orders on Linux   {:>6}  {same:.1} %", self.near_same)
    }
}
