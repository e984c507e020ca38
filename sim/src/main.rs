//! Command line of the simulation: explores, replays and draws scenarios.
//!
//! `cargo run --release -p lameduck-sim -- --seeds 0..5000` explores. It exits 0 only if every
//! promise held. A run that is long enough must also have reached every state of the
//! sometimes-table.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
