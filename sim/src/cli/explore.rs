//! Explores, and shows the progress.
#![expect(
    clippy::disallowed_methods,
    reason = "the speed of a run is a matter of the machine's time; no world sees it"
)]

use super::{Held, args::Args, failure, print, print_error};
use indicatif::{ProgressBar, ProgressStyle};
use lameduck_sim::{
    Case,
    draw::draw_apart,
    explore::{Exploration, Network, play_on},
    fidelity,
};
use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Interval between progress lines if stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Scenarios side by side in real time. They mostly wait.
const REAL_TIME_THREADS: usize = 32;

pub(super) fn explore(args: &Args) -> io::Result<Held> {
    let stop = Arc::new(AtomicBool::new(false));
    // On a second SIGINT the flag is already set, which ends the process at once.
    signal_hook::flag::register_conditional_shutdown(
        signal_hook::consts::SIGINT,
        130,
        Arc::clone(&stop),
    )?;
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;

    let seeds = if args.time.is_some() { args.seeds.start..u64::MAX } else { args.seeds.clone() };
    let life = Progress::new(args.time.is_none().then(|| seeds.end - seeds.start));
    let (began, cpu) = (Instant::now(), cpu_time());
    let on_progress = || {
        life.one_more(began.elapsed());
        if args.time.is_some_and(|limit| began.elapsed() >= limit) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let mut exploration = Exploration::new(play_on(args.network), seeds, &stop);
    let draw = |seed| args.network.draw(seed);
    exploration.draw = &draw;
    if !args.network.replays() {
        exploration.replay_every = None;
        exploration.threads = REAL_TIME_THREADS;
    }
    exploration.threads = args.threads.unwrap_or(exploration.threads).max(1);
    if args.census {
        exploration.found_max = usize::MAX;
    }
    exploration.on_progress = &on_progress;
    let mut summary = exploration.run();
    summary.can_reach_all = args.network == Network::TurmoilNet;
    summary.real = began.elapsed();
    summary.cpu = Some(cpu_time().saturating_sub(cpu));
    life.over();

    if args.census && args.json {
        print(&format!("{}\n", summary.to_json()))?;
        return Ok(if summary.is_good() { Held::Yes } else { Held::No });
    }
    if args.census {
        let lines = summary
            .found
            .iter()
            .flat_map(|found| found.broken.iter().map(move |broken| (found.seed, broken.promise)));
        print(&lines.map(|(seed, promise)| format!("{seed} {promise}\n")).collect::<String>())?;
        return Ok(if summary.is_good() { Held::Yes } else { Held::No });
    }
    for found in &summary.found {
        failure::tell(args.network, found)?;
    }
    print(&if args.json { format!("{}\n", summary.to_json()) } else { format!("{summary}\n") })?;
    Ok(if summary.is_good() { Held::Yes } else { Held::No })
}

/// Compares the simulation with Linux.
pub(super) fn fidelity(seeds: &std::ops::Range<u64>, case: Option<u64>) -> io::Result<Held> {
    if let Some(seed) = case {
        let case = Case {
            description: format!("seed {seed} of the fidelity report"),
            promise: String::new(),
            network: Network::Linux,
            scenario: draw_apart(seed),
            recorded: None,
        };
        print(&case.to_json())?;
        return Ok(Held::Yes);
    }
    let report = fidelity::Report::of(seeds.clone(), cores(), 4 * cores());
    print(&format!("{report}\n"))?;
    Ok(if report.is_good() { Held::Yes } else { Held::No })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Shows the progress: as a bar on a terminal, otherwise as a line at intervals.
struct Progress {
    bar: Option<ProgressBar>,
    played: AtomicU64,
    lines: AtomicU64,
}

impl Progress {
    fn new(length: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| match length {
            Some(length) => ProgressBar::new(length).with_style(
                ProgressStyle::with_template(
                    "{bar:40} {pos}/{len} scenarios, {per_sec}, {eta} to go",
                )
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
            ),
            None => ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {pos} scenarios, {per_sec}, for {elapsed}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            ),
        });
        Self { bar, played: AtomicU64::new(0), lines: AtomicU64::new(0) }
    }

    fn one_more(&self, elapsed: Duration) {
        let played = self.played.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let due = elapsed.as_secs() / LINE_EVERY.as_secs();
        if self.lines.fetch_max(due, Ordering::Relaxed) < due {
            print_error(&format!("{played} scenarios after {} s", elapsed.as_secs()));
        }
    }

    fn over(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Returns the CPU time that this process has used.
fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or(0),
        u32::try_from(spent.tv_nsec).unwrap_or(0),
    )
}
