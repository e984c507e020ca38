//! Checks whether two runs of one seed are the same (S8).
//!
//! Only then can a failure be replayed. Some seeds are therefore played twice, each time on a new
//! thread, and the records are compared. Contents may differ: a service may put random identifiers
//! and the time of day into its responses and its log.

use super::runner::is_on_other_network;
use crate::{
    explore::{Runner, examine_by},
    oracle::Broken,
    scenario::{Outcome, Scenario},
    trace::Record,
};
use std::{fmt::Write, ops::Range, thread, time::Duration};

/// One in this many seeds is played twice.
const ONE_IN: u64 = 20;
/// At most this many are.
const SEEDS_MAX: u64 = 5;

/// The fields that must be equal in both runs.
const COMPARED: [&str; 9] =
    ["request", "connection", "status", "how", "phase", "signal", "code", "count", "what"];

/// Usual causes of a difference in what happens at one moment.
const CHOICES: &str = "a `select!` without `biased`, the order of a HashMap or HashSet, or a \
                       random number";
/// Usual causes of a difference in when it happens.
const TIMES: &str = "the real clock (std::time instead of tokio::time), a thread of the service \
                     (simulated time waits only for spawn_blocking), the order of a HashMap or \
                     HashSet, a random number, or a `select!` without `biased`";
/// The cause if threads of `spawn_blocking` ran.
const BLOCKING: &str = "the threads of spawn_blocking, whose order is not simulated, or ";

/// Plays some of the seeds twice. Returns the first difference, with its scenario.
pub(super) fn examine(
    play: &Runner,
    draw: &dyn Fn(u64) -> Scenario,
    seeds: &Range<u64>,
) -> Option<(Broken, Box<Scenario>)> {
    chosen(seeds).find_map(|seed| {
        let scenario = draw(seed);
        let (first, second) = play_twice(play, &scenario)?;
        // The order of their results is not simulated. A service that waits for them is sound.
        if first.trace.has_threads() || second.trace.has_threads() {
            return None;
        }
        let parting = parting(&first.trace.records(), &second.trace.records())?;
        let why = format!(
            "two runs of one seed {}; a failure of this service may not be seen again when it is \
             replayed. Usual causes: {}. If this is intended, say so by Trials::may_diverge",
            parting.words, parting.causes
        );
        Some((Broken { promise: "S8", words: "runs can be replayed", why }, Box::new(scenario)))
    })
}

/// Explains why a failure was not seen again in a second run.
pub(super) fn explain(play: &Runner, scenario: &Scenario) -> String {
    let begin = "a second run of this seed did not break it";
    let Some((first, second)) = play_twice(play, scenario) else { return begin.to_owned() };
    let blocking = if first.trace.has_threads() { BLOCKING } else { "" };
    match parting(&first.trace.records(), &second.trace.records()) {
        Some(Parting { words, causes }) => {
            format!("{begin}: two runs {words}. Usual causes: {blocking}{causes}")
        }
        None => format!("{begin}. Usual causes: {blocking}{TIMES}"),
    }
}

/// Returns the seeds that are played twice. On the other network threads are not seen.
fn chosen(seeds: &Range<u64>) -> impl Iterator<Item = u64> {
    let (seeds, len) = (seeds.clone(), seeds.end.saturating_sub(seeds.start));
    let count = (len / ONE_IN).clamp(1, SEEDS_MAX);
    (0..count)
        .map(move |n| seeds.start + n * (len / count))
        .map(|seed| if is_on_other_network(seed) { seed + 1 } else { seed })
        .filter(move |seed| *seed < seeds.end)
}

/// Plays a scenario twice. Returns `None` if a run panics, which is reported as another failure.
fn play_twice(play: &Runner, scenario: &Scenario) -> Option<(Outcome, Outcome)> {
    // Hash maps and tokio's `select!` take their randomness from the thread.
    let on_new_thread = || {
        thread::scope(|scope| scope.spawn(|| examine_by(&[], play, scenario)).join()).ok()?.outcome
    };
    Some((on_new_thread()?, on_new_thread()?))
}

/// The first difference of two runs.
#[derive(Debug, PartialEq, Eq)]
struct Parting {
    words: String,
    causes: &'static str,
}

/// What is compared of a record. Records of one moment may come in any order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Compared {
    at: Duration,
    what: String,
}

fn parting(first: &[Record], second: &[Record]) -> Option<Parting> {
    let (first, second) = (compared(first), compared(second));
    let place = first.iter().zip(&second).take_while(|(first, second)| first == second).count();
    let (first, second) = (first.get(place), second.get(place));
    let at = [first, second].into_iter().flatten().map(|record| record.at).min()?;
    let what = |record: Option<&Compared>| match record {
        Some(record) if record.at == at => format!("{:?}", record.what),
        Some(Compared { at, what }) => format!("{what:?}, at {:.3} s", at.as_secs_f64()),
        None => "nothing more".to_owned(),
    };
    let words = format!(
        "part at {:.3} s: the first has {}, the second {}",
        at.as_secs_f64(),
        what(first),
        what(second)
    );
    let is_at_once = first.zip(second).is_some_and(|(first, second)| first.at == second.at);
    Some(Parting { words, causes: if is_at_once { CHOICES } else { TIMES } })
}

fn compared(records: &[Record]) -> Vec<Compared> {
    let mut all: Vec<_> = records
        .iter()
        .map(|record| {
            let mut what = format!("{} {}", record.actor, record.event);
            for (name, value) in record.fields.iter().filter(|(name, _)| COMPARED.contains(name)) {
                // Writing to a string cannot fail.
                let _ = write!(what, " {name}={value}");
            }
            Compared { at: record.at, what }
        })
        .collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::{CHOICES, TIMES, chosen, parting};
    use crate::trace::Record;
    use std::time::Duration;

    fn record(ms: u64, event: &'static str, status: u64, body: &str) -> Record {
        let fields = vec![("status", status.into()), ("body", body.into())];
        Record {
            at: Duration::from_millis(ms),
            actor: "client-0".into(),
            event,
            fields: fields.into(),
        }
    }

    #[test]
    fn the_first_difference_is_found_whatever_the_order_of_one_moment_and_the_contents() {
        let (head, end) = (record(5, "head", 200, "a"), record(5, "completed", 200, "b"));
        let later = record(9, "completed", 200, "");
        let first = [head.clone(), end.clone(), later.clone()];
        let reordered = [end.clone(), record(5, "head", 200, "z"), later.clone()];
        assert_eq!(parting(&first, &reordered), None);

        let other = parting(&first, &[head.clone(), end.clone(), record(9, "completed", 500, "")]);
        let other = other.unwrap();
        assert_eq!(other.causes, CHOICES);
        let words = "part at 0.009 s: the first has \"client-0 completed status=200\", the second \
                     \"client-0 completed status=500\"";
        assert_eq!(other.words, words);

        let late = parting(&first, &[head.clone(), end.clone(), record(10, "completed", 200, "")]);
        let late = late.unwrap();
        assert!(late.words.ends_with("completed status=200\", at 0.010 s"), "{}", late.words);
        assert_eq!(late.causes, TIMES);
        let missing = parting(&first, &[head, end]).unwrap();
        assert!(missing.words.ends_with("the second nothing more"), "{}", missing.words);
    }

    #[test]
    fn a_few_seeds_are_chosen_and_none_of_the_other_network() {
        let chosen = |seeds| chosen(&seeds).collect::<Vec<_>>();
        assert_eq!(chosen(0..12), [1]);
        assert_eq!(chosen(0..100), [1, 21, 41, 61, 81]);
        assert_eq!(chosen(7..8), [7]);
        assert_eq!(chosen(5..6), [0_u64; 0]);
    }
}
