//! The command line.

mod advise;
mod args;
mod explore;
mod failure;
mod replay;
mod zoo;

use clap::Parser;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Runs the requested command.
pub(crate) fn main() -> ExitCode {
    let args = args::Args::parse();
    let done = match (&args.command, &args.log, args.one()) {
        (Some(args::Command::Advise(settings)), _, _) => advise::advise_on(settings),
        (Some(args::Command::Fidelity { seeds, case }), _, _) => explore::fidelity(seeds, *case),
        (Some(args::Command::Zoo { names, seeds }), _, _) => zoo::zoo(names, *seeds),
        (None, Some(log), _) => replay::draw_log(&args, log),
        (None, None, Some(one)) => replay::replay(&args, &one),
        (None, None, None) => explore::explore(&args),
    };
    match done {
        Ok(Held::Yes) => ExitCode::SUCCESS,
        Ok(Held::No) => ExitCode::FAILURE,
        Err(error) => {
            print_error(&format!("lameduck-sim: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Whether every promise held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    No,
}

/// Prints a line to stderr. Errors are ignored: a reader that has gone must not cause a panic.
pub(crate) fn print_error(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a result to stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
