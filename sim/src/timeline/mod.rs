//! What happened, as a picture: phases as bands, a row a connection with its requests, signals, deadlines, GOAWAYs, aborts.
//!
//! ```text
//!  a scenario's trace ──▶ Picture ──▶ text, for a terminal
//!  a process's JSON log ──┘    └────▶ SVG, for a page
//! ```

mod log;
mod scenario;
mod svg;
mod text;

pub use log::NoPhases;

use lameduck::lifecycle::Phase;
use std::time::Duration;

/// A shutdown, ready to be drawn. Times are of whatever told it: a world, or a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// What it shows.
    pub title: String,
    /// How it ended.
    pub outcome: String,
    /// The time at its left edge.
    pub from: Duration,
    /// The time at its right edge.
    pub to: Duration,
    /// The phases, in order.
    pub bands: Vec<Band>,
    /// Signals and other stop requests.
    pub stops: Vec<Mark>,
    /// Deadlines, with what they are.
    pub deadlines: Vec<Mark>,
    /// Connections and hooks.
    pub rows: Vec<Row>,
}

/// A phase and its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Which.
    pub phase: Phase,
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

/// A moment with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// What.
    pub what: String,
}

/// A line of the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub label: String,
    /// When it was there.
    pub bars: Vec<Bar>,
    /// What happened at a moment.
    pub marks: Vec<(Duration, Sign)>,
}

/// A span of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// What it is.
    pub kind: Kind,
    /// Its name, if there is room for it.
    pub label: String,
}

/// What a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection is open.
    Open,
    /// A request, answered.
    Answered,
    /// A request that was told that it could not be served: 408, 503.
    Refused,
    /// A request without a whole answer.
    Broken,
    /// A hook at work.
    Hook,
    /// A hook that did not end well.
    HookBroken,
}

/// What happens at a moment of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// HTTP/2: told to go.
    Goaway,
    /// HTTP/1: told to go.
    Close,
    /// Closed by a FIN.
    Fin,
    /// Broken off.
    Reset,
}

impl Picture {
    /// Where a time is between the edges, from 0 to 1.
    fn place(&self, at: Duration) -> f64 {
        let span = self.to.saturating_sub(self.from).as_secs_f64().max(0.001);
        (at.saturating_sub(self.from).as_secs_f64() / span).min(1.0)
    }

    /// Round times between the edges, not too many.
    fn ticks(&self) -> Vec<Duration> {
        let span = self.to.saturating_sub(self.from);
        let steps = [
            1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000,
            300_000,
        ];
        let step = steps
            .into_iter()
            .map(Duration::from_millis)
            .find(|step| span.as_nanos() / step.as_nanos() <= 12);
        let step = step.unwrap_or(Duration::from_secs(600));
        let mut at = Duration::ZERO;
        let mut ticks = Vec::new();
        while at <= self.to {
            if at >= self.from {
                ticks.push(at);
            }
            at += step;
        }
        ticks
    }
}

/// `1.25 s`, `40 ms`: as short as it is exact.
fn seconds(at: Duration) -> String {
    let text = format!("{:.3}", at.as_secs_f64());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}
