//! How long the lame duck delay must be on a platform.

use super::{
    losses::Losses,
    platform::{Deploy, Platform},
};
use crate::{
    app::{Actor, Drill},
    harness::{TestWorld, explore},
    trace::Trace,
};
use lameduck::lifecycle::Plan;
use std::{fmt, ops::Range, time::Duration};

/// Number of delays in the first pass.
const STEPS: u32 = 8;
/// Delays are multiples of this.
const GRAIN: Duration = Duration::from_millis(100);
/// Width of the longest bar of the curve.
const BAR_MAX: f64 = 40.0;

/// The losses of one lame duck delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The delay.
    pub lame_duck: Duration,
    /// What clients lost.
    pub losses: Losses,
}

/// The shortest lame duck delay that loses nothing on a platform, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The shortest delay that lost nothing, unless each lost something.
    pub least: Option<Duration>,
    /// All delays that were tried, in order.
    pub curve: Vec<Point>,
}

/// Searches for the shortest lame duck delay that loses nothing. Each delay is tried in one deploy
/// for each seed; the shortest one in three times as many. A deploy that does not end, or in which
/// a process is killed, counts as one that loses a request. The longest delays are left out if
/// their deploys do not end in the time of a play, and lose nothing until then.
///
/// The service has quick and slow requests, `GET` and `POST`. Half of its clients never repeat a
/// request.
///
/// # Panics
/// Panics if there is no seed.
#[must_use]
pub fn advise(deploy: Deploy, seeds: Range<u64>) -> Advice {
    let mut search = Search { deploy, curve: Vec::new(), seeds: seeds.clone() };
    let most = rounded(longest(&deploy.platform));
    for step in 0..=STEPS {
        search.lost(rounded(most * step / STEPS));
    }
    let Some(mut clean) = first_clean(&search.curve) else {
        return Advice { least: None, curve: search.curve };
    };
    // Between the longest delay that loses something, and the next one.
    let mut below = clean.checked_sub(1).map(|lossy| search.curve[lossy].lame_duck);
    let mut least = search.curve[clean].lame_duck;
    while let Some(lost) = below
        && least - lost > GRAIN
    {
        let middle = rounded(lost + (least - lost) / 2);
        if search.lost(middle) { below = Some(middle) } else { least = middle }
    }
    // Rare losses show in more deploys only.
    search.seeds = seeds.start..seeds.end + 2 * (seeds.end - seeds.start);
    clean = search.place(least);
    while clean < search.curve.len() {
        search.curve[clean].losses =
            losses(deploy, search.curve[clean].lame_duck, search.seeds.clone());
        if !search.curve[clean].loses() {
            break;
        }
        let next = search.curve[clean].lame_duck + GRAIN;
        if next > most || search.curve[clean].proves_nothing() {
            return Advice { least: None, curve: search.curve };
        }
        search.lost(next);
        clean = search.place(next);
    }
    let least = search.curve.get(clean).map(|point| point.lame_duck);
    Advice { least, curve: search.curve }
}

struct Search {
    deploy: Deploy,
    seeds: Range<u64>,
    /// In the order of the delays.
    curve: Vec<Point>,
}

impl Search {
    /// Tries a delay. Returns whether something was lost.
    fn lost(&mut self, lame_duck: Duration) -> bool {
        let place = self.place(lame_duck);
        if self.curve.get(place).is_none_or(|point| point.lame_duck != lame_duck) {
            let losses = losses(self.deploy, lame_duck, self.seeds.clone());
            self.curve.insert(place, Point { lame_duck, losses });
        }
        self.curve[place].loses()
    }

    fn place(&self, lame_duck: Duration) -> usize {
        self.curve.partition_point(|point| point.lame_duck < lame_duck)
    }
}

impl Point {
    /// Whether a deploy lost a request, or did not end as it should: it proves nothing then.
    fn loses(&self) -> bool {
        self.losses.plays_with_loss + self.losses.unfinished + self.losses.killed > 0
    }

    /// Whether a deploy took longer than a play, and nothing was lost until then.
    pub(super) fn proves_nothing(&self) -> bool {
        self.losses.unfinished > 0 && self.losses.plays_with_loss + self.losses.killed == 0
    }
}

/// Returns the place of the shortest delay from which on nothing is lost. The longest delays are
/// left out if they prove nothing.
fn first_clean(curve: &[Point]) -> Option<usize> {
    let proving = curve.iter().rposition(|point| !point.proves_nothing())?;
    let lossy = curve[..=proving].iter().rposition(Point::loses);
    Some(lossy.map_or(0, |lossy| lossy + 1)).filter(|clean| *clean <= proving)
}

/// Returns a delay that is long enough on any platform that is worth a search.
fn longest(platform: &Platform) -> Duration {
    let probing = platform.probing();
    let probes = probing.period * (probing.fall + 1);
    let notices = if platform.has_pool() { probes } else { platform.propagation() };
    notices + notices / 2 + Duration::from_secs(1)
}

fn rounded(delay: Duration) -> Duration {
    let grains = delay.as_millis().div_ceil(GRAIN.as_millis());
    GRAIN * u32::try_from(grains).unwrap_or(u32::MAX)
}

fn losses(deploy: Deploy, lame_duck: Duration, seeds: Range<u64>) -> Losses {
    let service = |world: TestWorld| {
        world.host().serve_hyper(Drill::new(Actor { name: String::new(), trace: Trace::new() }))
    };
    explore(service)
        .get("/fast")
        .get("/slow?ms=30")
        .post("/echo", "tea")
        .plan(Plan::new().lame_duck(lame_duck))
        .seeds(seeds)
        .deploy(deploy)
        .losses()
}

impl Advice {
    /// Returns the upper bound of the share of deploys that lose a request with the advised delay,
    /// from 0 to 1, with a confidence of 95 %.
    #[must_use]
    pub fn bound(&self) -> Option<f64> {
        let point = self.curve.iter().find(|point| Some(point.lame_duck) == self.least)?;
        // None of n: the rule of three.
        Some((3.0 / point.losses.plays as f64).min(1.0))
    }

    /// Returns the curve as a picture.
    #[must_use]
    pub fn svg(&self) -> String {
        super::curve::svg(&self.curve, self.least)
    }
}

/// Writes the curve, a line for each delay, and the result.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.curve.iter().map(|point| point.losses.per_deploy()).fold(0.0, f64::max);
        writeln!(f, "lame duck   lost per deploy   deploys that lose a request")?;
        for Point { lame_duck, losses } in &self.curve {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width")]
            let width =
                (losses.per_deploy() / most.max(f64::MIN_POSITIVE) * BAR_MAX).ceil() as usize;
            writeln!(
                f,
                "{:>7.1} s   {:>15.2}   {:>5} of {:<5} {}{}",
                lame_duck.as_secs_f64(),
                losses.per_deploy(),
                losses.plays_with_loss,
                losses.plays,
                "█".repeat(width),
                losses.ends()
            )?;
        }
        if self.curve.last().is_some_and(Point::proves_nothing) {
            writeln!(
                f,
                "the longest delays have deploys that take longer than an hour, and prove nothing"
            )?;
        }
        let point = self.curve.iter().find(|point| Some(point.lame_duck) == self.least);
        let Some(point) = point else {
            return write!(
                f,
                "each delay loses requests, or its deploys do not end well: see what the platform \
                 does"
            );
        };
        write!(
            f,
            "the least lame duck delay that loses nothing: {:.1} s\n\
             none of {} requests was lost in {} deploys: with a confidence of 95 %, at most \
             {:.1} % of all deploys lose one",
            point.lame_duck.as_secs_f64(),
            point.losses.requests + point.losses.requests_with_retries,
            point.losses.plays,
            self.bound().unwrap_or(1.0) * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Advice, Losses, Point, first_clean};
    use std::time::Duration;

    // The longest delays that were tried made the deploys of a slow balancer longer than an hour.
    // They counted as lossy, and no delay was advised.
    #[test]
    fn the_longest_delays_whose_deploys_do_not_end_hide_no_clean_one() {
        let point = |losses| Point { lame_duck: Duration::from_secs(9), losses };
        let clean = point(Losses { plays: 2, ..Losses::default() });
        let lossy = point(Losses { plays: 2, plays_with_loss: 1, ..Losses::default() });
        let open = point(Losses { plays: 2, unfinished: 1, ..Losses::default() });
        let killed = point(Losses { plays: 2, unfinished: 1, killed: 1, ..Losses::default() });
        for (curve, expected) in [
            (vec![&lossy, &clean, &open, &open], Some(1)),
            (vec![&open, &clean, &clean, &open], Some(1)),
            (vec![&clean, &clean], Some(0)),
            (vec![&lossy, &open], None),
            (vec![&clean, &lossy, &open], None),
            (vec![&clean, &killed], None),
        ] {
            let curve: Vec<Point> = curve.into_iter().cloned().collect();
            assert_eq!(first_clean(&curve), expected, "{curve:?}");
        }
        let least = Some(clean.lame_duck);
        let text = Advice { least, curve: vec![clean.clone(), open] }.to_string();
        assert!(text.contains("longer than an hour, and prove nothing"), "{text}");
        let text = Advice { least, curve: vec![clean] }.to_string();
        assert!(!text.contains("prove nothing"), "{text}");
    }

    // Deploys that had not ended after an hour, or in which each process was killed, counted as
    // deploys without a loss: their delay was advised.
    #[test]
    fn a_deploy_that_does_not_end_well_is_none_without_a_loss() {
        let point = |losses| Point { lame_duck: Duration::from_secs(9), losses };
        let killed = point(Losses { plays: 2, killed: 3, ..Losses::default() });
        let unfinished = point(Losses { plays: 2, unfinished: 1, ..Losses::default() });
        assert!(killed.loses() && unfinished.loses());
        assert!(!point(Losses { plays: 2, ..Losses::default() }).loses());
        let text = Advice { least: None, curve: vec![killed, unfinished] }.to_string();
        for words in ["; 3 processes were killed\n", "; 1 deploys did not end\n", "do not end well"]
        {
            assert!(text.contains(words), "{text}");
        }
    }
}
