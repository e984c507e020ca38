//! The command line.

mod comparison;
mod evidence;
mod server_args;
mod under_load;

use crate::{
    formats::{Format, format},
    grading::{Effort, Report, grade},
    probe::examine,
    process,
    progress::Progress,
    scenario::{Need, Scenario, all, matches},
    stop_lag,
    target::Profile,
};
use clap::{Args, Parser, Subcommand};
use comparison::{CompareArgs, compare};
use evidence::{prepare, write_evidence};
use server_args::{ServerArgs, parse_time, slow_hint};
use signal_hook::{
    consts::{SIGHUP, TERM_SIGNALS},
    iterator::Signals,
};
use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::OnceLock,
    thread,
    time::Duration,
};
use under_load::{RolloutArgs, SoakArgs, restart_under_load, roll_out};

/// Grades the shutdown of any HTTP server process, in any language.
#[derive(Debug, Parser)]
#[command(name = "lameduck-check", version, arg_required_else_help = true)]
// The options of a list can be replaced by those that follow.
#[command(args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Grade a server
    Run(Box<RunArgs>),
    /// List the scenarios
    List(Selection),
    /// Explain a scenario: what it does, why it matters, and the usual repair
    Explain {
        /// Name of the scenario, or a pattern such as 'accept/*'
        name: String,
    },
    /// Restart a server repeatedly under load, and count what was lost
    Soak(Box<SoakArgs>),
    /// Restart three servers in turn behind HAProxy and nginx, under load
    Rollout(Box<RolloutArgs>),
    /// Grade the servers of a list, and write a page with a picture
    Compare(CompareArgs),
}

const EXAMPLES: &str = "\
Only GET on one path that responds 200 is required. A server with the routes of --slow, --echo,
--stream, --big and --ws is tried with more; a scenario whose route is missing is skipped.

Examples:
  lameduck-check run --port-env PORT -- node server.js
  lameduck-check run -- python3 -m http.server --bind 127.0.0.1 {port}
  lameduck-check run --addr 127.0.0.1:3000 --profile bare --grace 10s -- ./server
  lameduck-check run --ready http://127.0.0.1:{port2}/readiness --strict -- \\
      ./server --addr 127.0.0.1:{port} --internal-addr 127.0.0.1:{port2}

Exit code: 0 passed, 1 a MUST failed (--strict: or a SHOULD), 2 something could not be tried.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct RunArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How long new connections should be served after the stop
    #[arg(long, default_value = "100ms", value_parser = parse_time)]
    lame_duck: Duration,
    /// Time after which a --stop command has asked the server to stop [default: measured]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    stop_takes: Option<Duration>,
    /// Which behaviour is expected
    #[arg(long, value_enum, default_value = "kubernetes")]
    profile: Profile,
    #[command(flatten)]
    selection: Selection,
    /// Repetitions of each scenario. One that fails after more than 8 s is not repeated
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Decides the drawn moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Servers that run at the same time, if the port can be chosen and no URL is fixed
    #[arg(long, default_value_t = 8, value_parser = parse_jobs)]
    jobs: usize,
    /// A failed SHOULD is a failure, too
    #[arg(long)]
    strict: bool,
    /// List what would be tried
    #[arg(long)]
    list: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Folder for the timeline and the bytes of each failure
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Selection {
    /// Only these scenarios, for example 'accept/*'; may be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Not these scenarios; may be repeated
    #[arg(long, value_name = "PATTERN")]
    skip: Vec<String>,
}

impl Selection {
    /// Returns the selected scenarios.
    fn scenarios(&self) -> Result<Vec<&'static Scenario>, String> {
        for pattern in self.only.iter().chain(&self.skip) {
            if !all().any(|scenario| matches(pattern, scenario.name)) {
                return Err(format!(
                    "no scenario matches `{pattern}`; `lameduck-check list` has all"
                ));
            }
        }
        let is_in = |patterns: &[String], name| patterns.iter().any(|one| matches(one, name));
        let selected: Vec<_> = all()
            .filter(|scenario| self.only.is_empty() || is_in(&self.only, scenario.name))
            .filter(|scenario| !is_in(&self.skip, scenario.name))
            .collect();
        if selected.is_empty() { Err("no scenario is left".to_owned()) } else { Ok(selected) }
    }
}

fn parse_jobs(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|jobs| (1..=64).contains(jobs))
        .ok_or_else(|| "expected a number from 1 to 64".to_owned())
}

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = kill_on_signals() {
        eprintln!("error: cannot handle signals: {error}");
        return ExitCode::from(2);
    }
    // On systems other than Linux, a server that puts itself into the background is not killed.
    let _ = process::adopt_orphans();
    let result = match Cli::parse().command {
        Action::Run(args) => run(&args),
        Action::List(selection) => list(&selection),
        Action::Explain { name } => explain(&name),
        Action::Soak(args) => restart_under_load(&args),
        Action::Rollout(args) => roll_out(&args),
        Action::Compare(args) => compare(&args),
    };
    process::kill_all();
    if let Some(code) = ENDED_BY_A_SIGNAL.get() {
        // Its servers were killed, and what failed for that is no result.
        return ExitCode::from(*code);
    }
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// The exit code of this process, once a signal ends it.
static ENDED_BY_A_SIGNAL: OnceLock<u8> = OnceLock::new();

/// Kills the servers when this process is ended by a signal.
fn kill_on_signals() -> io::Result<()> {
    // A lost terminal ends the check like Ctrl-C, except under nohup.
    let hangup = (!is_hangup_ignored()).then_some(&SIGHUP);
    let mut signals = Signals::new(TERM_SIGNALS.iter().chain(hangup))?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let code = *ENDED_BY_A_SIGNAL.get_or_init(|| u8::try_from(128 + signal).unwrap_or(2));
            process::kill_all();
            std::process::exit(code.into());
        }
    })?;
    Ok(())
}

/// Whether SIGHUP was ignored when this process was started.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

/// Grades the server of a command line, which begins with `run`. Prints nothing.
///
/// # Errors
/// What is wrong with the command line, or why the server could not be tried.
pub fn grade_by<I, T>(arguments: I) -> Result<Report, String>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    parse_run(arguments)?.grade(&Progress::silent())
}

/// Checks a command line, which begins with `run`, for a command that has its own report.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn expect_run(arguments: Vec<String>) -> Result<(), String> {
    let args = parse_run(arguments)?;
    args.selection.scenarios()?;
    stop_lag::expect(&args.server.target()?, args.stop_takes)?;
    args.server.expect_lame_duck(args.lame_duck)?;
    let unused = [
        ("--evidence", args.evidence.is_some()),
        ("--strict", args.strict),
        ("--list", args.list),
        ("--format", args.format != Format::Human),
    ];
    match unused.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(format!("{flag}: only `run` has it")),
        None => Ok(()),
    }
}

fn parse_run<I, T>(arguments: I) -> Result<Box<RunArgs>, String>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    match Cli::try_parse_from(arguments).map_err(|error| error.to_string())?.command {
        Action::Run(args) => Ok(args),
        Action::List(_)
        | Action::Explain { .. }
        | Action::Soak(_)
        | Action::Rollout(_)
        | Action::Compare(_) => Err("expected `run`".to_owned()),
    }
}

impl RunArgs {
    /// Returns a line for each scenario that may be tried.
    fn listed(&self) -> Result<String, String> {
        let mut scenarios = self.selection.scenarios()?;
        scenarios.retain(|scenario| scenario.needs.contains(&Need::Tls) == self.server.tls);
        Ok(lines(&scenarios, self.profile))
    }

    fn grade(&self, progress: &Progress) -> Result<Report, String> {
        let scenarios = self.selection.scenarios()?;
        let mut target = self.server.target()?;
        self.server.expect_lame_duck(self.lame_duck)?;
        stop_lag::expect(&target, self.stop_takes)?;
        if let Some(folder) = &self.evidence {
            prepare(folder)?;
        }
        (target.profile, target.lame_duck) = (self.profile, self.lame_duck);
        let abilities = examine(&mut target, &self.server.routes())?;
        target.stop_takes = stop_lag::of(&target, self.stop_takes)?;
        let effort = Effort { repeat: self.repeat, seed: self.seed, jobs: self.jobs };
        if let Some(hint) = slow_hint(&target, self.jobs) {
            eprintln!("{hint}");
        }
        let report = grade(&target, &abilities, &scenarios, effort, progress);
        progress.end();
        Ok(report)
    }
}

fn run(args: &RunArgs) -> Result<ExitCode, String> {
    if args.list {
        print(&args.listed()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = args.grade(&Progress::on_terminal())?;
    print(&format(&report, args.format, args.strict))?;
    if let Some(folder) = &args.evidence {
        write_evidence(&report, folder)?;
    }
    Ok(ExitCode::from(report.exit_code(args.strict)))
}

fn list(selection: &Selection) -> Result<ExitCode, String> {
    print(&lines(&selection.scenarios()?, Profile::Kubernetes))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a line for each scenario, with its grade.
fn lines(scenarios: &[&Scenario], profile: Profile) -> String {
    let width = if io::stdout().is_terminal() { 60 } else { 1000 };
    let line = |scenario: &&Scenario| {
        let grade = scenario.weight.in_profile(profile);
        let does: String = scenario.does.chars().take(width).collect();
        format!("{:26} {grade:6} {does}\n", scenario.name)
    };
    scenarios.iter().map(line).collect()
}

fn explain(name: &str) -> Result<ExitCode, String> {
    print(&explained(name)?)?;
    Ok(ExitCode::SUCCESS)
}

fn explained(name: &str) -> Result<String, String> {
    let selection = Selection { only: vec![name.to_owned()], skip: Vec::new() };
    let mut text = String::new();
    for scenario in selection.scenarios()? {
        let grades: Vec<String> = [Profile::Kubernetes, Profile::Proxy, Profile::Bare]
            .into_iter()
            .map(|profile| format!("{} {}", profile.name(), scenario.weight.in_profile(profile)))
            .collect();
        let needs: Vec<&str> = scenario.all_needs().map(Need::missing).collect();
        let needs = needs.join("; ");
        text += &format!(
            "{}\n  does     {}\n  matters  {}\n  rule     {}\n  repair   {}\n  grade    {}\n  \
             skipped  {needs}\n",
            scenario.name,
            scenario.does,
            scenario.why,
            scenario.rule,
            scenario.repair,
            grades.join(", ")
        );
    }
    Ok(text)
}

/// Prints to standard output, whose reader may be gone.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Action, Cli, Selection, explained, grade_by, parse_run, restart_under_load, roll_out,
    };
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_input_has_an_error_with_its_value() {
        let error = |arguments: &[&str]| {
            let all = ["lameduck-check", "run"].iter().chain(arguments);
            grade_by(all.copied()).unwrap_err()
        };
        for (arguments, words) in [
            (&["--only", "nothing/*", "--", "true"][..], "no scenario matches `nothing/*`"),
            (&["--stop", "KILL", "--", "true"], "expected TERM, INT, QUIT"),
            (&["--ready", "here", "--", "true"], "`here` is not a URL"),
            (&["--path", "x", "--", "true"], "a path begins with a slash"),
            (&["--grace", "0s", "--", "true"], "expected a time from 1ms on"),
            (&["--grace", "soon", "--", "true"], "soon"),
            // A longer time would overflow when it is added to an `Instant`.
            (&["--start", "18000000000000000000s", "--", "true"], "at most 1day"),
            (&["--lame-duck", "2days", "--", "true"], "at most 1day"),
            // A server was blamed for what it closed when the delay was over.
            (&["--lame-duck", "0s", "--", "true"], "has --profile bare"),
            // A server was blamed for requests that SIGKILL had cut.
            (&["--lame-duck", "2s", "--grace", "2s", "--", "true"], "2s: expected less than --gra"),
            // Refused before the run, whose report would be lost.
            (&["--evidence", "/dev/null/x", "--", "true", "{port}"], "--evidence /dev/null/x"),
            (&["--stop-takes", "1s", "--", "true"], "--stop-takes: only a command"),
            (&["--jobs", "0", "--", "true"], "from 1 to 64"),
            (&["--repeat", "0", "--", "true"], "0"),
            (&[], "no server: its command follows `--`"),
            (&["--", "/no/such/program", "{port}"], "cannot start `/no/such/program`"),
            (&["--", "sh", "-c", "echo alas; exit 3 # {port}"], "exit code 3"),
            (&["--", "sh", "-c", "echo alas; exit 3 # {port}"], "alas"),
            (&["--tls", "--", "sh", "-c", "exit 3 # {port}"], "(https://127.0.0.1:"),
        ] {
            let error = error(arguments);
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }

    // A soak without a restart or a client succeeded, whatever the server, and so did a rollout
    // without a restart.
    #[test]
    fn a_load_has_clients_and_a_restart() {
        for (command, flag) in
            [("soak", "--restarts"), ("soak", "--clients"), ("rollout", "--restarts")]
        {
            let command = ["lameduck-check", command, flag, "0", "--", "true"];
            let error = Cli::try_parse_from(command).unwrap_err();
            assert!(error.to_string().contains(flag) && error.exit_code() == 2, "{error}");
        }
        let none = ["rollout", "--keeping=0", "--per-request=0", "--", "true"];
        let cli = Cli::try_parse_from(["lameduck-check"].into_iter().chain(none)).unwrap();
        let Action::Rollout(args) = cli.command else { panic!("{cli:?}") };
        assert!(roll_out(&args).unwrap_err().contains("needs a client"));
    }

    // A server that speaks TLS lost every request: the clients of these commands sent plain text.
    #[test]
    fn the_commands_under_load_refuse_tls() {
        for command in ["soak", "rollout"] {
            let words = ["lameduck-check", command, "--tls", "--", "/no/such/program"];
            let error = match Cli::try_parse_from(words).unwrap().command {
                Action::Soak(args) => restart_under_load(&args),
                Action::Rollout(args) => roll_out(&args),
                other @ (Action::Run(_)
                | Action::List(_)
                | Action::Explain { .. }
                | Action::Compare(_)) => panic!("{other:?}"),
            };
            assert!(error.unwrap_err().starts_with("--tls: "), "{command}");
        }
    }

    // `run --list` had the grades of another profile, and scenarios that are not tried.
    #[test]
    fn what_would_be_tried_is_listed() {
        let run = |words: &[&str]| parse_run([&["lameduck-check", "run"], words].concat()).unwrap();
        let bare = run(&["--profile", "bare", "--only", "*/kept-connection"]).listed().unwrap();
        assert!(bare.starts_with("lame-duck/kept-connection  INFO"), "{bare}");
        let tls = run(&["--tls"]).listed().unwrap();
        assert!(tls.lines().count() == 3 && tls.lines().all(|line| line.starts_with("tls/")));
    }

    // `explain` said that scenarios which `--tls` skips are never skipped.
    #[test]
    fn each_scenario_is_skipped_over_tls_or_without_it() {
        let tls = explained("tls/*").unwrap() + &explained("accept/at-close").unwrap();
        assert_eq!(
            tls.matches("skipped  the server was not said to speak TLS").count(),
            3,
            "{tls}"
        );
        assert_eq!(tls.matches("skipped  the server speaks TLS").count(), 1, "{tls}");
    }

    #[test]
    fn scenarios_are_selected_by_patterns() {
        let selection = Selection { only: vec!["accept/*".into()], skip: vec!["*/backlog".into()] };
        let names: Vec<_> = selection.scenarios().unwrap().iter().map(|one| one.name).collect();
        assert_eq!(names, ["accept/at-close"]);
    }
}
