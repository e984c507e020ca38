//! The simulation at the command line: explores, replays, draws.
//!
//! `cargo run --release -p lameduck-sim -- --seeds 0..5000` explores. It exits 0 only if every promise held and, in a run that
//! is long enough for it, every state of the sometimes-table was reached.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
