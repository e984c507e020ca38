//! Flags and environment. Every setting is a row of [`SETTINGS`]; this module adds only what
//! concerns the binary itself.

use super::logging::LogFormat;
use crate::{PortSharing, SETTINGS, Settings, SettingsError};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};
use std::ffi::OsString;

/// The parsed command line.
#[derive(Debug)]
#[non_exhaustive]
pub struct Args {
    /// The settings of the host.
    pub settings: Settings,
    /// Whether to serve the routes for practising shutdowns.
    pub drill: Drill,
    /// The fault to inject, to practise the exit codes.
    pub fault: Fault,
    /// Whether to serve or to print the plan.
    pub task: Task,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// A filter in the syntax of `RUST_LOG`, if one was given as a flag.
    pub log_level: Option<String>,
}

/// Whether the drill routes are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// The drill routes are served.
    Yes,
    /// Only hello world is served.
    No,
}

/// The fault that a drill injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A background task fails: exit code 1.
    Task,
    /// A stop hook fails: exit code 4.
    Hook,
    /// The last step before the exit blocks: the watchdog's exit code 5.
    Exit,
}

/// The task of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Serve.
    Serve,
    /// Print the shutdown sequence with its worst case.
    PrintPlan,
}

/// An error that leaves nothing to run.
#[derive(Debug)]
pub enum ArgsError {
    /// A flag that does not exist, or `--help` or `--version`.
    ProcessUsage(clap::Error),
    /// A setting with an unusable value.
    Setting(SettingsError),
}

impl Args {
    /// Reads the command line and the environment of this process.
    ///
    /// # Errors
    /// [`ArgsError`]; `--help` and `--version` are among them.
    pub fn from_process() -> Result<Self, ArgsError> {
        Self::parse(std::env::args_os(), crate::settings::variable)
    }

    /// Reads a command line, whose first word is the program's name, and an environment.
    ///
    /// # Errors
    /// [`ArgsError`]; `--help` and `--version` are among them.
    pub fn parse(
        words: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ArgsError> {
        let matches = command().try_get_matches_from(words).map_err(ArgsError::ProcessUsage)?;
        let flag = |flag: &str| -> Vec<String> {
            matches
                .get_many::<String>(flag)
                .map(|values| values.cloned().collect())
                .unwrap_or_default()
        };
        let mut settings = Settings::default()
            .resolve(|setting| flag(setting.flag), &variable)
            .map_err(ArgsError::Setting)?;
        if settings.app_version.is_empty() {
            env!("CARGO_PKG_VERSION").clone_into(&mut settings.app_version);
        }
        if matches.get_flag("reuse-port") {
            settings.port_sharing = PortSharing::Shared;
        }
        Ok(Self {
            settings,
            drill: if matches.contains_id("drill") { Drill::Yes } else { Drill::No },
            fault: fault(&matches),
            task: if matches.get_flag("print-plan") { Task::PrintPlan } else { Task::Serve },
            log_format: log_format(&matches),
            log_level: matches.get_one::<String>("log-level").cloned(),
        })
    }
}

fn fault(matches: &ArgMatches) -> Fault {
    match matches.get_one::<String>("drill").map(String::as_str) {
        Some("task") => Fault::Task,
        Some("hook") => Fault::Hook,
        Some("exit") => Fault::Exit,
        Some(_) | None => Fault::None,
    }
}

fn log_format(matches: &ArgMatches) -> LogFormat {
    match matches.get_one::<String>("log-format").map(String::as_str) {
        Some("human") => LogFormat::Human,
        Some("json") => LogFormat::Json,
        Some(_) | None => LogFormat::Auto,
    }
}

/// The command line, for `--help` and for documents.
#[must_use]
pub fn command() -> Command {
    let settings = SETTINGS.iter().map(|setting| {
        Arg::new(setting.flag)
            .long(setting.flag)
            .value_name(setting.value)
            .action(if setting.is_repeatable() { ArgAction::Append } else { ArgAction::Set })
            .help(format!(
                "{} [env: {}] [default: {}]",
                setting.help, setting.variable, setting.default
            ))
    });
    Command::new("lameduck")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An HTTP service that loses no request in a deploy and always exits in bounded time")
        .after_help(
            "A flag goes before its variable. Durations carry a unit: 500ms, 5s, 1m.\n\n\
             SIGTERM, SIGINT, SIGQUIT and SIGHUP ask for a stop; a further SIGINT or SIGQUIT ends the current wait.\n\n\
             Exit codes: 0 clean, 1 could not start or a background task failed, 2 bad usage or plan, 3 the shutdown \
             cut requests,\n4 a stop hook failed or overran, 5 the watchdog ended the process.",
        )
        .args(settings)
        .arg(
            Arg::new("reuse-port")
                .long("reuse-port")
                .action(ArgAction::SetTrue)
                .help("Listen beside another process on the same port that says the same"),
        )
        .arg(
            Arg::new("drill")
                .long("drill")
                .value_name("FAULT")
                .num_args(0..=1)
                .require_equals(true)
                .overrides_with("drill")
                .default_missing_value("none")
                .value_parser(PossibleValuesParser::new(["none", "task", "hook", "exit"]))
                .help(
                    "Serve routes to practise shutdowns with: /slow, /stuck, /work, /echo, /stream, /big, /upgrade, /panic. With \
                     a fault that happens: task (exit code 1), hook (4), exit (5)",
                ),
        )
        .arg(
            Arg::new("print-plan")
                .long("print-plan")
                .action(ArgAction::SetTrue)
                .help("Print the shutdown sequence with its worst case, and exit"),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_name("FORMAT")
                .value_parser(PossibleValuesParser::new(["auto", "human", "json"]))
                .default_value("auto")
                .help("How log lines on stderr look; auto: human-readable on a terminal, else JSON"),
        )
        .arg(Arg::new("log-level").long("log-level").value_name("FILTER").help(
            "What is logged: error, warn, info, debug, trace or a filter like RUST_LOG's [env: RUST_LOG] [default: info]",
        ))
}
