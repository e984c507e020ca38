//! The commands `soak` and `rollout`.

use super::{
    print,
    server_args::{ServerArgs, parse_time},
};
use crate::{
    balancer::Kind,
    progress::Progress,
    restarts::{HandOver, Soak, block_on, soak},
    rollout::{Outcome, Rollout, Step, roll},
    target::Target,
};
use clap::Args;
use std::{process::ExitCode, time::Duration};

#[derive(Debug, Args)]
pub(super) struct SoakArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Number of restarts
    #[arg(long, default_value_t = 20, value_parser = parse_count)]
    restarts: usize,
    /// Busy clients that keep their connection; the same number opens one for every request
    #[arg(long, default_value_t = 16, value_parser = parse_count)]
    clients: usize,
    /// Longest one-way latency; each connection draws its own
    #[arg(long, default_value = "3ms", value_parser = parse_time)]
    latency: Duration,
    /// Load before each stop. The kernel repeats a dropped SYN after a second; below that most
    /// clients still wait
    #[arg(long, default_value = "1300ms", value_parser = parse_time)]
    every: Duration,
    /// How one process hands over to the next
    #[arg(long, value_enum, default_value = "restart")]
    hand_over: HandOver,
}

#[derive(Debug, Args)]
pub(super) struct RolloutArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Balancer to use
    #[arg(long, value_enum, default_value = "both")]
    behind: Behind,
    /// Minimum number of restarts per balancer
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    restarts: u64,
    /// Minimum number of responses per balancer
    #[arg(long, default_value_t = 100_000)]
    responses: u64,
    /// Clients that keep their connection
    #[arg(long, default_value_t = 24)]
    keeping: usize,
    /// Clients that open a connection for every request
    #[arg(long, default_value_t = 8)]
    per_request: usize,
    /// Longest time per balancer
    #[arg(long, default_value = "20m", value_parser = parse_time)]
    time: Duration,
}

impl RolloutArgs {
    /// Rolls the server out behind this balancer.
    fn roll(&self, kind: Kind, target: &Target) -> Result<Outcome, String> {
        let plan = Rollout {
            kind,
            target: target.clone(),
            keeping: self.keeping,
            per_request: self.per_request,
            restarts_min: self.restarts,
            responses_min: self.responses,
            span_max: self.time,
        };
        let progress = Progress::on_terminal();
        progress.begin(usize::try_from(self.restarts).unwrap_or(usize::MAX));
        let rolling = roll(&plan, |Step { answered, failed }| {
            progress.next(&format!("{}: {answered} responses, {failed} failed", kind.name()));
        });
        let rolled = block_on(rolling).map_err(|error| error.to_string())?;
        progress.end();
        rolled.map_err(|error| format!("{}: {error}", kind.name()))
    }

    /// Returns why a rollout without an error has ended too early, in a line, if it has.
    fn incomplete(&self, kind: Kind, outcome: &Outcome) -> Option<String> {
        let has_all = outcome.restarts >= self.restarts && outcome.answered >= self.responses;
        let line = format!(
            "{}: --time {} was over after {} of {} restarts and {} of {} responses\n",
            kind.name(),
            humantime::format_duration(self.time),
            outcome.restarts,
            self.restarts,
            outcome.answered,
            self.responses
        );
        (!has_all && outcome.error.is_none()).then_some(line)
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "expected a number from 1 on".to_owned())
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Behind {
    Haproxy,
    Nginx,
    Both,
}

pub(super) fn restart_under_load(args: &SoakArgs) -> Result<ExitCode, String> {
    args.server.expect_load("soak", &[])?;
    // A socket that is held needs no port, and the server may not start without it.
    let target = match args.hand_over {
        HandOver::Socket => args.server.trusted()?,
        HandOver::Restart | HandOver::ReusePort => args.server.examined()?,
    };
    let plan = Soak {
        hand_over: args.hand_over,
        restarts: args.restarts,
        clients: args.clients,
        latency: args.latency,
        every: args.every,
    };
    let soaked = block_on(soak(&target, plan, &Progress::on_terminal()))
        .map_err(|error| error.to_string())??;
    let totals = &soaked.load.totals;
    print(&format!(
        "{} restarts: {}; {} exits were not clean\n{}{}",
        soaked.restarts,
        totals.line(),
        soaked.unclean.len(),
        soaked.unclean.iter().chain([&totals.stories()]).fold(String::new(), |all, story| {
            if story.is_empty() { all } else { all + story + "\n" }
        }),
        if soaked.is_perfect() { "" } else { "failed\n" }
    ))?;
    if let Some(error) = soaked.error {
        return Err(error);
    }
    Ok(if soaked.is_perfect() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn roll_out(args: &RolloutArgs) -> Result<ExitCode, String> {
    args.server.expect_load("rollout", &["--echo"])?;
    if args.keeping == 0 && args.per_request == 0 {
        return Err("--keeping 0 --per-request 0: a rollout needs a client".to_owned());
    }
    let kinds: &[Kind] = match args.behind {
        Behind::Haproxy => &[Kind::Haproxy],
        Behind::Nginx => &[Kind::Nginx],
        Behind::Both => &[Kind::Haproxy, Kind::Nginx],
    };
    if let Some(kind) = kinds.iter().find(|kind| !kind.is_installed()) {
        return Err(format!("{} is not installed: choose another with --behind", kind.name()));
    }
    let target = args.server.examined()?;
    print("balancer   restarts  responses     failed   requests/s   unclean exits\n")?;
    let (mut stories, mut is_perfect) = (String::new(), true);
    let rolled = kinds.iter().try_for_each(|&kind| {
        let outcome = args.roll(kind, &target)?;
        outcome.stories.iter().for_each(|story| stories += &format!("{story}\n"));
        let why = args.incomplete(kind, &outcome);
        is_perfect &= outcome.is_perfect() && why.is_none();
        stories.extend(why);
        // At once, since the next one may take as long, and fail.
        print(&line(kind, &outcome))?;
        outcome.error.map_or(Ok(()), |error| Err(format!("{}: {error}", kind.name())))
    });
    print(&stories)?;
    rolled?;
    Ok(if is_perfect { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns a line of the table.
fn line(kind: Kind, outcome: &Outcome) -> String {
    format!(
        "{:<8} {:>10} {:>10} {:>10} {:>12.0} {:>15}\n",
        kind.name(),
        outcome.restarts,
        outcome.answered,
        outcome.failed,
        outcome.rate(),
        outcome.unclean_exits
    )
}

#[cfg(test)]
mod tests {
    use super::RolloutArgs;
    use crate::{balancer::Kind, rollout::Outcome};
    use clap::{Args, Command, FromArgMatches};
    use std::time::Duration;

    // A rollout that `--time` had ended failed, and nothing in its report had failed.
    #[test]
    fn a_rollout_that_ends_early_says_why() {
        let command = RolloutArgs::augment_args(Command::new("rollout"));
        let words = ["rollout", "--restarts=5", "--responses=100", "--time=90s"];
        let args = RolloutArgs::from_arg_matches(&command.get_matches_from(words)).unwrap();
        let why = |restarts, answered| {
            let span = Duration::from_secs(90);
            let outcome = Outcome { restarts, answered, span, ..Outcome::default() };
            args.incomplete(Kind::Nginx, &outcome)
        };
        assert_eq!(why(5, 100), None);
        let line = "nginx: --time 1m 30s was over after 4 of 5 restarts and 200 of 100 responses\n";
        assert_eq!(why(4, 200).as_deref(), Some(line));
    }
}
