//! Builds pictures of a run: from a scenario's trace, or from the JSON log of a real process.

mod log;
mod scenario;

pub use lameduck_wire::timeline::{Band, Bar, Kind, Mark, Picture, Row, Sign, Tone};
pub use log::{NoPhases, of_log};
pub use scenario::of_scenario;

use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Returns the band of a phase: its name, letter and colours.
fn band(phase: Phase, from: Duration, to: Duration) -> Band {
    let (letter, tone) = match phase {
        Phase::Starting => ('.', Tone::Grey),
        Phase::Serving => ('S', Tone::Green),
        Phase::LameDuck => ('L', Tone::Yellow),
        Phase::Draining => ('D', Tone::Blue),
        Phase::Cancelling => ('C', Tone::Red),
        Phase::CleaningUp => ('U', Tone::Purple),
        Phase::Stopped => ('#', Tone::Dark),
    };
    Band { name: phase.name().replace('_', " "), letter, tone, from, to }
}
