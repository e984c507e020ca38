//! Plays the scenarios, repeats them, and grades what was found.

use crate::{
    evidence::Evidence,
    probe::Abilities,
    progress::Progress,
    scenario::{Grade, Scenario},
    target::{Listen, Profile, Target},
    trial::{Abort, Findings, Trial},
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Number of repetitions, and of servers at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repetitions of each scenario.
    pub repeat: u32,
    /// Decides the drawn moments.
    pub seed: u64,
    /// Servers that run at the same time.
    pub jobs: usize,
}

/// The outcome of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing went wrong.
    Pass,
    /// Something went wrong at least once.
    Fail,
    /// It does not apply, for this reason.
    Skip(String),
    /// It could not be tried, or more repetitions could not be tried than could. This is the reason
    /// of the first.
    Broken(String),
}

/// The result of a scenario.
#[derive(Debug)]
pub struct Graded {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// Its grade in the profile.
    pub grade: Grade,
    /// Its outcome.
    pub verdict: Verdict,
    /// Repetitions that were played to their end, or failed.
    pub played: u32,
    /// Reasons of the repetitions that could not be tried.
    pub broken: Vec<String>,
    /// What all repetitions found.
    pub findings: Findings,
    /// The record of the first repetition that failed.
    pub evidence: Option<Evidence>,
}

impl Graded {
    fn new(scenario: &'static Scenario, profile: Profile, verdict: Verdict) -> Self {
        let grade = scenario.weight.in_profile(profile);
        Self {
            scenario,
            grade,
            verdict,
            played: 0,
            broken: Vec::new(),
            findings: Findings::default(),
            evidence: None,
        }
    }

    /// Returns whether other repetitions are pointless: it does not apply, or could not be tried
    /// twice. Once may be a moment at which the machine was busy.
    fn is_settled(&self) -> bool {
        match self.verdict {
            Verdict::Pass | Verdict::Fail => false,
            Verdict::Skip(_) => true,
            Verdict::Broken(_) => self.played == 0 && self.broken.len() > 1,
        }
    }

    /// Adds a repetition.
    fn add(&mut self, played: Result<(), Abort>, findings: Findings, evidence: Option<Evidence>) {
        let failed = findings.failures > 0;
        match played {
            Err(Abort::Skip(why)) if !failed => {
                if self.played == 0 && self.verdict != Verdict::Fail {
                    self.verdict = Verdict::Skip(why);
                }
            }
            Err(Abort::Broken(why)) if !failed => {
                self.broken.push(why);
                self.judge();
            }
            Ok(()) | Err(_) => {
                self.played += 1;
                self.judge();
            }
        }
        // A failure that was seen is one, whatever could not be tried.
        if failed {
            self.verdict = Verdict::Fail;
        }
        self.findings.add(findings);
        if self.evidence.is_none() {
            self.evidence = evidence;
        }
    }

    /// Derives the verdict from the counts, unless a repetition has failed, or all were skipped.
    fn judge(&mut self) {
        let is_skipped = self.played == 0 && matches!(self.verdict, Verdict::Skip(_));
        if is_skipped || self.verdict == Verdict::Fail {
            return;
        }
        let is_broken = self.broken.len() > usize::try_from(self.played).unwrap_or(usize::MAX);
        let why = self.broken.first().filter(|_| is_broken);
        self.verdict = why.cloned().map_or(Verdict::Pass, Verdict::Broken);
    }

    /// Returns the median of each measured time, in the order of their first measurement.
    #[must_use]
    pub fn medians(&self) -> Vec<(&'static str, Duration)> {
        let mut medians: Vec<(&'static str, Duration)> = Vec::new();
        for (name, _) in &self.findings.times {
            if medians.iter().all(|(known, _)| known != name) {
                let of_name = self.findings.times.iter().filter(|(other, _)| other == name);
                let mut times: Vec<Duration> = of_name.map(|(_, time)| *time).collect();
                times.sort();
                medians.push((name, times[times.len() / 2]));
            }
        }
        medians
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// Command of the server.
    pub command: Vec<String>,
    /// What was expected.
    pub profile: Profile,
    /// One result per scenario, family by family.
    pub graded: Vec<Graded>,
    /// How long the run took.
    pub took: Duration,
}

/// Passed and tried scenarios of one grade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Scenarios without a failure.
    pub passed: usize,
    /// Scenarios that were tried.
    pub tried: usize,
}

impl Report {
    /// Returns the score of the scenarios that match.
    #[must_use]
    pub fn score(&self, such: impl Fn(&Graded) -> bool) -> Score {
        let mut score = Score::default();
        for graded in self.graded.iter().filter(|graded| such(graded)) {
            match graded.verdict {
                Verdict::Pass => {
                    score.passed += 1;
                    score.tried += 1;
                }
                Verdict::Fail => score.tried += 1,
                Verdict::Skip(_) | Verdict::Broken(_) => {}
            }
        }
        score
    }

    /// Returns the exit code: 1 if a MUST failed, or with `strict` a SHOULD; 2 if a scenario could
    /// not be tried; otherwise 0.
    #[must_use]
    pub fn exit_code(&self, strict: bool) -> u8 {
        let counts = |graded: &&Graded| {
            graded.grade == Grade::Must || (strict && graded.grade == Grade::Should)
        };
        if self.graded.iter().filter(counts).any(|graded| graded.verdict == Verdict::Fail) {
            return 1;
        }
        let is_broken = |graded: &Graded| matches!(graded.verdict, Verdict::Broken(_));
        if self.graded.iter().any(is_broken) { 2 } else { 0 }
    }

    /// Returns the families, in order.
    #[must_use]
    pub fn families(&self) -> Vec<&'static str> {
        let mut families: Vec<&str> =
            self.graded.iter().map(|graded| graded.scenario.family()).collect();
        families.dedup();
        families
    }
}

/// Bounds of a rate of which `failures` in `tries` were seen, with 95 % confidence (Wilson).
#[must_use]
pub fn interval(failures: u64, tries: u64) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are small")]
    let (failures, tries) = (failures as f64, tries as f64);
    if tries == 0.0 {
        return (0.0, 1.0);
    }
    let z = 1.96_f64;
    let (rate, scale) = (failures / tries, 1.0 + z * z / tries);
    let centre = rate + z * z / (2.0 * tries);
    let spread = z * (rate * (1.0 - rate) / tries + z * z / (4.0 * tries * tries)).sqrt();
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

/// One repetition to play.
struct Item {
    place: usize,
    scenario: &'static Scenario,
    repetition: u32,
}

/// A repetition that takes longer than this and fails is not repeated.
const LONG: Duration = Duration::from_secs(8);

/// Plays these scenarios against the server.
#[must_use]
pub fn grade(
    target: &Target,
    abilities: &Abilities,
    scenarios: &[&'static Scenario],
    effort: Effort,
    progress: &Progress,
) -> Report {
    let begin = Instant::now();
    let verdict = |scenario: &Scenario| match abilities.missing(scenario) {
        Some(need) => Verdict::Skip(need.missing().to_owned()),
        None => Verdict::Pass,
    };
    let graded: Vec<Graded> = scenarios
        .iter()
        .map(|scenario| Graded::new(scenario, target.profile, verdict(scenario)))
        .collect();
    // All scenarios once before any is repeated.
    let items: VecDeque<Item> = (0..effort.repeat)
        .flat_map(|repetition| {
            let applying = graded.iter().enumerate().filter(|(_, of)| of.verdict == Verdict::Pass);
            let items: Vec<Item> = applying
                .map(|(place, of)| Item { place, scenario: of.scenario, repetition })
                .collect();
            items
        })
        .collect();
    progress.begin(items.len());
    let is_fixed = matches!(target.listen, Listen::At(_)) || !target.fixed().is_empty();
    let jobs = if is_fixed { 1 } else { effort.jobs };
    let (queue, graded) = (Mutex::new(items), Mutex::new(graded));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| work(target, effort.seed, &queue, &graded, progress));
        }
    });
    Report {
        command: target.command.clone(),
        profile: target.profile,
        graded: graded.into_inner().unwrap_or_else(PoisonError::into_inner),
        took: begin.elapsed(),
    }
}

fn work(
    target: &Target,
    seed: u64,
    queue: &Mutex<VecDeque<Item>>,
    graded: &Mutex<Vec<Graded>>,
    progress: &Progress,
) {
    let lock = || graded.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let item = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(item) = item else { return };
        progress.next(item.scenario.name);
        if lock()[item.place].is_settled() {
            continue;
        }
        let begin = Instant::now();
        let draw = seed.wrapping_mul(1_000_003).wrapping_add(u64::from(item.repetition) + 1);
        let mut trial = Trial::new(target, draw);
        let played = trial.play(item.scenario);
        let failed = trial.findings.failures > 0;
        let evidence = failed.then(|| Evidence::of(item.scenario, &trial));
        let mut all = lock();
        all[item.place].add(played, trial.findings, evidence);
        drop(all);
        if failed && begin.elapsed() > LONG {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.retain(|other| other.place != item.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Graded, Verdict, interval};
    use crate::{
        scenario::all,
        target::Profile,
        trial::{Abort, Findings},
    };

    fn graded(repetitions: &[(Result<(), Abort>, u64)]) -> Graded {
        let mut graded = Graded::new(all().next().unwrap(), Profile::Kubernetes, Verdict::Pass);
        for (played, failures) in repetitions {
            let findings = Findings { tries: 1, failures: *failures, ..Findings::default() };
            graded.add(played.clone(), findings, None);
        }
        graded
    }

    #[test]
    fn repetitions_that_could_not_be_tried_are_counted() {
        let broken = |why: &str| (Err(Abort::Broken(why.to_owned())), 0);
        let (passed, failed) = ((Ok(()), 0), (Ok(()), 1));
        let most = graded(&[passed.clone(), broken("a"), broken("b")]);
        assert_eq!(most.verdict, Verdict::Broken("a".to_owned()));
        assert!(!most.is_settled() && graded(&[broken("a"), broken("b")]).is_settled());
        let half = graded(&[broken("a"), passed.clone()]);
        assert_eq!((half.verdict, half.played, half.broken.len()), (Verdict::Pass, 1, 1));
        let fault = graded(&[broken("a"), broken("b"), failed.clone()]);
        assert_eq!((fault.verdict, fault.broken.len()), (Verdict::Fail, 2));
        let later = graded(&[failed, broken("a"), broken("b")]);
        assert_eq!((later.verdict, later.broken.len()), (Verdict::Fail, 2));
        let cut = graded(&[passed, (broken("a").0, 1)]);
        assert_eq!((cut.verdict, cut.played, cut.broken.len()), (Verdict::Fail, 2, 0));
    }

    // A server was reported as one that could not be tried, since the machine was busy during the
    // first repetition: no other was played.
    #[test]
    fn one_busy_moment_settles_nothing() {
        let (busy, passed) = ((Err(Abort::Broken("busy".to_owned())), 0), (Ok(()), 0));
        assert!(!graded(std::slice::from_ref(&busy)).is_settled());
        let later = graded(&[busy, passed.clone(), passed]);
        assert_eq!((later.verdict, later.played, later.broken.len()), (Verdict::Pass, 2, 1));
    }

    // A server that lost requests in one repetition was reported as skipped, with exit code 0 even
    // with --strict, because a later repetition did not apply.
    #[test]
    fn a_repetition_that_does_not_apply_hides_no_other() {
        let skipped = (Err(Abort::Skip("late".to_owned())), 0);
        let (passed, failed) = ((Ok(()), 0), (Ok(()), 1));
        assert_eq!(graded(&[failed.clone(), skipped.clone()]).verdict, Verdict::Fail);
        assert_eq!(graded(&[skipped.clone(), failed]).verdict, Verdict::Fail);
        assert_eq!(graded(&[passed.clone(), skipped.clone()]).verdict, Verdict::Pass);
        assert_eq!(graded(&[skipped.clone(), passed]).verdict, Verdict::Pass);
        let broken = (Err(Abort::Broken("a".to_owned())), 0);
        let verdict = Verdict::Skip("late".to_owned());
        assert_eq!(graded(&[broken.clone(), skipped.clone()]).verdict, verdict);
        assert_eq!(graded(&[skipped, broken]).verdict, verdict);
    }

    #[test]
    fn an_interval_contains_its_rate_and_never_leaves_zero_to_one() {
        for (failures, tries) in [(0, 1), (0, 20), (3, 20), (20, 20), (1, 1000)] {
            let (low, high) = interval(failures, tries);
            let rate = failures as f64 / tries as f64;
            assert!((0.0..=rate + 1e-9).contains(&low), "{failures} of {tries}: {low}");
            assert!((rate - 1e-9..=1.0).contains(&high), "{failures} of {tries}: {high}");
        }
        // The published value for 3 of 20.
        let (low, high) = interval(3, 20);
        assert!((low - 0.052).abs() < 0.001 && (high - 0.360).abs() < 0.001, "{low} {high}");
        assert_eq!(interval(0, 0), (0.0, 1.0));
    }
}
