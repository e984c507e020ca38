//! A run as a picture: phases as bands, and one row per connection with its requests. Signals,
//! deadlines, GOAWAYs and aborts are marks.
//!
//! ```text
//!  a scenario's trace ────┐
//!  a process's JSON log ──┼──▶ Picture ──▶ text, for a terminal
//!  a client's record ─────┘       └──────▶ SVG, for a page
//! ```

mod svg;
mod text;

pub use svg::escape;

use std::time::Duration;

/// A shutdown, ready to be drawn. Times are those of its source: simulated time, or a log's
/// timestamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Title.
    pub title: String,
    /// Result of the run, in one line.
    pub outcome: String,
    /// Time at the left edge.
    pub from: Duration,
    /// Time at the right edge.
    pub to: Duration,
    /// Phases, in order.
    pub bands: Vec<Band>,
    /// Signals and other stop requests.
    pub stops: Vec<Mark>,
    /// Deadlines, each with its name.
    pub deadlines: Vec<Mark>,
    /// Connections and hooks.
    pub rows: Vec<Row>,
}

/// A phase and its span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// Name of the phase.
    pub name: String,
    /// Its letter in a text picture.
    pub letter: char,
    /// Its colours in an SVG picture.
    pub tone: Tone,
    /// Start of the phase.
    pub from: Duration,
    /// End of the phase.
    pub to: Duration,
}

/// Colours of a band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a colour")]
pub enum Tone {
    Grey,
    Green,
    Yellow,
    Blue,
    Red,
    Purple,
    Dark,
}

/// A moment with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Time of the moment.
    pub at: Duration,
    /// Name of the moment.
    pub what: String,
}

/// A row of the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of the row.
    pub label: String,
    /// Spans of the row.
    pub bars: Vec<Bar>,
    /// Signs at single moments of the row.
    pub marks: Vec<(Duration, Sign)>,
}

/// A span of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Start of the span.
    pub from: Duration,
    /// End of the span.
    pub to: Duration,
    /// Kind of the span.
    pub kind: Kind,
    /// Name of the span. It is drawn only if there is room for it.
    pub label: String,
}

/// Kind of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An open connection.
    Open,
    /// A request with a complete response.
    Completed,
    /// A request that got an error response: 408 or 503.
    Refused,
    /// A request without a complete response.
    Broken,
    /// A running hook.
    Hook,
    /// A hook that failed, panicked or was given up.
    HookBroken,
}

/// Event at a moment of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A GOAWAY (HTTP/2).
    Goaway,
    /// A response with `Connection: close` (HTTP/1).
    Close,
    /// Closed by a FIN.
    Fin,
    /// Closed by an RST.
    Reset,
}

impl Picture {
    /// Returns the position of a time between the edges, from 0 to 1.
    fn place(&self, at: Duration) -> f64 {
        let span = self.to.saturating_sub(self.from).as_secs_f64().max(0.001);
        (at.saturating_sub(self.from).as_secs_f64() / span).min(1.0)
    }

    /// Returns at most about a dozen round times between the edges.
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

/// Formats a time in seconds without trailing zeros, for example `1.25 s`.
#[must_use]
pub fn seconds(at: Duration) -> String {
    let text = format!("{:.3}", at.as_secs_f64());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}
