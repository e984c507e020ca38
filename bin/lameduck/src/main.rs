//! The reference service: hello world on a lameduck host. From top to bottom, `main` is the
//! lifetime of a process.

mod args;
mod fault;
mod plan;

use args::{Args, ArgsError, Mode};
use lameduck::{
    Host, RunOptions, Settings,
    cli::logging,
    drill::Service,
    os::{block_signals, stdio::write_stderr_line},
};
use std::process::ExitCode;

fn main() -> ExitCode {
    // From now on no signal is lost, although the handlers are not yet installed.
    block_signals();

    // Flags override the environment, which overrides the defaults.
    let args = match Args::from_process() {
        Ok(args) => args,
        Err(error) => return refuse(error),
    };
    if let Err(error) = args.settings.check() {
        write_stderr_line(&format!("error: {error:#}"));
        return ExitCode::from(2);
    }
    if args.mode == Mode::PrintPlan {
        return print_plan(&args.settings);
    }

    // A log whose reader cannot block the process.
    let log = logging::install(args.log_format, args.log_level.as_deref())
        .unwrap_or_else(|error| error.exit());

    // Runs all phases: starting, serving, lame duck, draining, cancelling, cleaning up, stopped.
    // Then exits with the code of the report.
    let service = Service::new(&args.settings.app_version, args.routes);
    let fault = args.fault;
    let builder = fault::inject(Host::builder(args.settings).systemd().profiles(), fault);
    lameduck::run_with(
        RunOptions::new().finish(|_| {
            drop(log);
            fault::at_exit(fault);
        }),
        || Ok(builder.serve_hyper(service)),
    )
}

fn print_plan(settings: &Settings) -> ExitCode {
    match plan::print(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            write_stderr_line(&format!("error: cannot write the plan: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: ArgsError) -> ExitCode {
    match error {
        ArgsError::Usage(error) => {
            if error.use_stderr() {
                write_stderr_line(&usage_line(&error.render().to_string()));
            } else {
                // clap also returns `--help` and `--version` as errors. A closed standard output is
                // no error.
                let _ = error.print();
            }
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
        ArgsError::Setting(error) => error.exit(),
    }
}

/// Returns clap's message as one line: its first paragraph.
fn usage_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty());
    format!("{}; see --help", lines.collect::<Vec<_>>().join(" "))
}
