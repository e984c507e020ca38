//! The command line. The library defines a flag for every setting; this module adds those of the
//! binary.

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};
use lameduck::{
    PortSharing, Settings, SettingsError,
    cli::{self, logging::LogFormat},
    drill::Routes,
};

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Args {
    /// The settings of the host.
    pub(crate) settings: Settings,
    /// The routes to serve.
    pub(crate) routes: Routes,
    /// The fault to practise an exit code with.
    pub(crate) fault: Fault,
    /// Whether to serve or to print the plan.
    pub(crate) mode: Mode,
    /// The format of log lines.
    pub(crate) log_format: LogFormat,
    /// A filter in the syntax of `RUST_LOG`, if the flag was given.
    pub(crate) log_level: Option<String>,
}

/// The fault of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A background task fails: exit code 1.
    Task,
    /// A stop hook fails: exit code 4.
    Hook,
    /// The last step before the exit blocks: the watchdog's exit code 5.
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serve,
    /// Print the shutdown sequence with its worst case.
    PrintPlan,
}

/// An error that leaves nothing to run.
#[derive(Debug)]
pub(crate) enum ArgsError {
    /// A flag that does not exist, or `--help` or `--version`.
    Usage(clap::Error),
    /// A setting that cannot be used.
    Setting(SettingsError),
}

impl Args {
    /// Reads the command line and the environment of this process.
    pub(crate) fn from_process() -> Result<Self, ArgsError> {
        let command = command();
        let matches = command.clone().try_get_matches().map_err(ArgsError::Usage)?;
        let mut settings =
            cli::settings(Settings::default(), &command, &matches).map_err(ArgsError::Setting)?;
        if settings.app_version.is_empty() {
            env!("CARGO_PKG_VERSION").clone_into(&mut settings.app_version);
        }
        if matches.get_flag("reuse-port") {
            settings.port_sharing = PortSharing::Shared;
        }
        Ok(Self {
            settings,
            routes: if matches.contains_id("drill") { Routes::Drill } else { Routes::HelloOnly },
            fault: fault(&matches),
            mode: if matches.get_flag("print-plan") { Mode::PrintPlan } else { Mode::Serve },
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

fn command() -> Command {
    Command::new("lameduck")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "An HTTP service that loses no request during a deploy and always exits within a bound",
        )
        .after_help(
            "A flag overrides its variable. Durations need a unit: 500ms, 5s, 1m.\n\n\
             SIGTERM, SIGINT, SIGQUIT and SIGHUP, or those of --stop-signals, request a stop; a \
             further SIGINT or SIGQUIT of these ends the current wait.\n\n\
             Exit codes: 0 clean, 1 the start or a background task failed or tracked work \
             panicked, 2 bad usage or plan,\n3 the shutdown aborted requests or work, 4 a stop \
             hook failed or exceeded its budget, 5 the watchdog ended the process.",
        )
        .args(cli::flags())
        .arg(
            Arg::new("reuse-port").long("reuse-port").action(ArgAction::SetTrue).help(
                "Share the port with another process that also sets this flag (SO_REUSEPORT)",
            ),
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
                    "Serve routes to practise shutdowns: /slow, /stuck, /work, /echo, /stream, \
                     /big, /upgrade, /panic, /peer. With a fault: task (exit code 1), hook (4), \
                     exit (5)",
                ),
        )
        .arg(
            Arg::new("print-plan")
                .long("print-plan")
                .action(ArgAction::SetTrue)
                .help("Print the shutdown sequence with its worst case and exit"),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_name("FORMAT")
                .value_parser(PossibleValuesParser::new(["auto", "human", "json"]))
                .default_value("auto")
                .help(
                    "Format of the log lines on stderr; auto: human-readable on a terminal, \
                       otherwise JSON",
                ),
        )
        .arg(Arg::new("log-level").long("log-level").value_name("FILTER").help(
            "Log filter: error, warn, info, debug, trace, or the syntax of RUST_LOG, such as \
             info,hyper=debug [env: RUST_LOG] [default: info]",
        ))
}
