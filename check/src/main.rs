//! The command. [`lameduck_check::cli`] has all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    lameduck_check::cli::main()
}
