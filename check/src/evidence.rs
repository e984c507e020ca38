//! The record of a failed repetition: a timeline as text and SVG, the bytes of each connection, and
//! the output of the server.

use crate::{scenario::Scenario, trial::Trial};
use lameduck_wire::{
    End, Event, Excerpt, Track,
    http1::{Parsed, parse},
    timeline::{Band, Bar, Kind, Mark, Picture, Row, Sign, Tone},
};
use std::{fmt::Write, fs, io, path::Path, time::Duration};

/// Connections in a picture.
const ROWS_MAX: usize = 40;
/// Bytes of one event in a dump.
const DUMPED_MAX: usize = 600;

/// What is kept of a repetition.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The timeline.
    pub picture: Picture,
    /// The bytes, with times.
    pub bytes: String,
    /// The server's standard output and error.
    pub output: String,
}

impl Evidence {
    /// Takes the record of a repetition.
    #[must_use]
    pub fn of(scenario: &Scenario, trial: &Trial<'_>) -> Self {
        let tracks = trial.recorder.tracks();
        let findings = &trial.findings;
        let outcome = format!(
            "{} of {} failed: {}",
            findings.failures,
            findings.tries,
            findings.stories.first().map_or("", String::as_str)
        );
        Self {
            picture: picture(scenario.name, outcome, &trial.marks, &tracks),
            bytes: tracks.iter().fold(String::new(), dump),
            output: trial.output(),
        }
    }

    /// Writes four files into a folder, which is created.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("timeline.txt"), self.picture.to_string())?;
        fs::write(folder.join("timeline.svg"), self.picture.svg())?;
        fs::write(folder.join("bytes.txt"), &self.bytes)?;
        fs::write(folder.join("output.txt"), &self.output)
    }
}

fn picture(name: &str, outcome: String, marks: &[(Duration, String)], tracks: &[Track]) -> Picture {
    let events = tracks.iter().flat_map(Track::events).map(|(at, _)| at);
    let last = events.chain(marks.iter().map(|(at, _)| *at)).max().unwrap_or_default();
    let stop = marks.first().map_or(last, |(at, _)| *at);
    let exit = marks.last().map_or(last, |(at, _)| *at).max(stop);
    let band =
        |name: &str, letter, tone, from, to| Band { name: name.into(), letter, tone, from, to };
    let shown = last.saturating_sub(stop).max(Duration::from_millis(20));
    Picture {
        title: name.to_owned(),
        outcome,
        from: stop.saturating_sub(shown.mul_f64(0.4)),
        to: last + shown.mul_f64(0.04),
        bands: vec![
            band("serving", 'S', Tone::Green, Duration::ZERO, stop),
            band("stopping", 'D', Tone::Blue, stop, exit),
        ],
        stops: marks.iter().map(|(at, what)| Mark { at: *at, what: what.clone() }).collect(),
        deadlines: Vec::new(),
        rows: tracks.iter().take(ROWS_MAX).map(row).collect(),
    }
}

/// Draws a connection: open from the connect to its end, with a bar for each request.
fn row(track: &Track) -> Row {
    let events = track.events();
    let (mut bars, mut marks) = (Vec::new(), Vec::new());
    let mut received: Vec<u8> = Vec::new();
    let mut asked: Option<Duration> = None;
    let last = events.last().map_or(Duration::ZERO, |(at, _)| *at);
    let from = events.first().map_or(Duration::ZERO, |(at, _)| *at);
    bars.push(Bar { from, to: last, kind: Kind::Open, label: String::new() });
    let bar = |from, to, kind, label: String| Bar { from, to, kind, label };
    for (at, event) in &events {
        match event {
            Event::Sent(_) => asked = asked.or(Some(*at)),
            Event::Received(excerpt) => {
                received.extend_from_slice(&excerpt.bytes);
                while let Parsed::Complete(response, length) = parse(&received) {
                    received.drain(..length);
                    if response.says_close() {
                        marks.push((*at, Sign::Close));
                    }
                    let kind = if response.status < 500 { Kind::Completed } else { Kind::Refused };
                    let from = asked.take().unwrap_or(*at);
                    bars.push(bar(from, *at, kind, response.status.to_string()));
                }
            }
            Event::Ended(end) => {
                let sign = if *end == End::Reset { Some(Sign::Reset) } else { None };
                let sign = sign.or((*end == End::Closed).then_some(Sign::Fin));
                marks.extend(sign.map(|sign| (*at, sign)));
                if let Some(from) = asked.take() {
                    bars.push(bar(from, *at, Kind::Broken, end.to_string()));
                }
            }
            Event::ConnectFailed(_) => marks.push((*at, Sign::Reset)),
            Event::Connecting | Event::Connected | Event::ShutWrite | Event::Remark(_) => {}
        }
    }
    if let Some(from) = asked {
        // HTTP/2, a large response, or none.
        let kind = if received.is_empty() { Kind::Broken } else { Kind::Open };
        bars.push(bar(from, last, kind, String::new()));
    }
    Row { label: track.label().to_owned(), bars, marks }
}

fn dump(mut out: String, track: &Track) -> String {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "== {}", track.label());
    for (at, event) in track.events() {
        let ms = at.as_secs_f64() * 1000.0;
        let _ = match &event {
            Event::Sent(bytes) => writeln!(out, "{ms:10.2} ms  > {}", escaped(bytes)),
            Event::Received(bytes) => writeln!(out, "{ms:10.2} ms  < {}", escaped(bytes)),
            Event::Connecting => writeln!(out, "{ms:10.2} ms    connect"),
            Event::Connected => writeln!(out, "{ms:10.2} ms    connected"),
            Event::ConnectFailed(kind) => writeln!(out, "{ms:10.2} ms    connect failed: {kind}"),
            Event::ShutWrite => writeln!(out, "{ms:10.2} ms  > FIN"),
            Event::Ended(End::Closed) => writeln!(out, "{ms:10.2} ms  < FIN"),
            Event::Ended(End::Reset) => writeln!(out, "{ms:10.2} ms  < RST"),
            Event::Ended(end) => writeln!(out, "{ms:10.2} ms    {end}"),
            Event::Remark(remark) => writeln!(out, "{ms:10.2} ms    ({remark})"),
        };
    }
    out.push('\n');
    out
}

fn escaped(excerpt: &Excerpt) -> String {
    let shown = &excerpt.bytes[..excerpt.bytes.len().min(DUMPED_MAX)];
    let text = shown.escape_ascii().to_string();
    if shown.len() < excerpt.length { format!("{text} … {} bytes", excerpt.length) } else { text }
}
