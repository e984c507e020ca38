//! The record of a failed repetition: a timeline as text and SVG, the bytes of each connection, and
//! the output of the server.

use crate::{scenario::Scenario, trial::Trial};
use lameduck_wire::{
    End, Event, Excerpt, Track,
    http1::{Parsed, parse, parse_at_close},
    timeline::{Band, Bar, Kind, Mark, Picture, Row, Sign, Tone},
};
use std::{fmt::Write, fs, io, path::Path, time::Duration};

/// The files of one failure.
const FILES: [&str; 4] = ["timeline.txt", "timeline.svg", "bytes.txt", "output.txt"];
/// Connections in a picture.
const ROWS_MAX: usize = 40;
/// Bytes of one event in a dump.
const DUMPED_MAX: usize = 600;
/// Bytes that may have the head of a response.
const HEAD_MAX: usize = 4096;

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
        let texts = [self.picture.to_string(), self.picture.svg()];
        let texts = texts.iter().chain([&self.bytes, &self.output]);
        FILES.iter().zip(texts).try_for_each(|(name, text)| fs::write(folder.join(name), text))
    }

    /// Removes the files of an earlier run from a folder, and the folder if it is empty then.
    ///
    /// # Errors
    /// Errors of the system. Files that are not there are none.
    pub fn remove(folder: &Path) -> io::Result<()> {
        for name in FILES {
            match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Others may have put something there.
        let _ = fs::remove_dir(folder);
        Ok(())
    }
}

fn picture(name: &str, outcome: String, marks: &[(Duration, String)], tracks: &[Track]) -> Picture {
    let events = tracks.iter().flat_map(Track::events).map(|(at, _)| at);
    let last = events.chain(marks.iter().map(|(at, _)| *at)).max().unwrap_or_default();
    let stop = marks.first().map_or(last, |(at, _)| *at);
    // Not every scenario waits for the exit.
    let exit = marks.get(1..).and_then(<[_]>::last).map_or(last, |(at, _)| *at).max(stop);
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
    for (at, event) in &events {
        match event {
            Event::Sent(_) => asked = asked.or(Some(*at)),
            Event::Received(excerpt) => {
                extend(&mut received, excerpt);
                while let Parsed::Complete(response, length) = parse(&received) {
                    received.drain(..length);
                    if response.says_close() {
                        marks.push((*at, Sign::Close));
                    }
                    bars.push(served(asked.take().unwrap_or(*at), *at, response.status));
                }
            }
            // The client polls, or gives up.
            Event::Ended(End::Silent) => {}
            Event::Ended(end) => {
                let sign = if *end == End::Reset { Some(Sign::Reset) } else { None };
                let sign = sign.or((*end == End::Closed).then_some(Sign::Fin));
                marks.extend(sign.map(|sign| (*at, sign)));
                let Some(from) = asked.take() else { continue };
                bars.push(match parse_at_close(&received) {
                    Parsed::Complete(response, _) if *end == End::Closed => {
                        served(from, *at, response.status)
                    }
                    Parsed::Complete(..) | Parsed::Partial | Parsed::Malformed => {
                        bar(from, *at, kind_of_rest(&received), end.to_string())
                    }
                });
            }
            Event::ConnectFailed(_) => marks.push((*at, Sign::Reset)),
            Event::Connecting | Event::Connected | Event::ShutWrite | Event::Remark(_) => {}
        }
    }
    if let Some(from) = asked {
        bars.push(bar(from, last, kind_of_rest(&received), String::new()));
    }
    Row { label: track.label().to_owned(), bars, marks }
}

fn bar(from: Duration, to: Duration, kind: Kind, label: String) -> Bar {
    Bar { from, to, kind, label }
}

fn served(from: Duration, to: Duration, status: u16) -> Bar {
    let kind = if status < 500 { Kind::Completed } else { Kind::Refused };
    bar(from, to, kind, status.to_string())
}

/// Stands for the bytes of which an excerpt has only the number.
const UNKNOWN: u8 = 0;

/// Adds what was received, in its whole length: a body with a length needs no more.
fn extend(received: &mut Vec<u8>, excerpt: &Excerpt) {
    let length = received.len() + excerpt.length;
    received.extend_from_slice(&excerpt.bytes);
    received.resize(length, UNKNOWN);
}

/// Returns the kind of a request without a complete response. HTTP/2, TLS, and a large response
/// without a length are not judged.
fn kind_of_rest(received: &[u8]) -> Kind {
    let is_http1 = received.is_empty() || received.starts_with(b"HTTP/");
    let head = received[..received.len().min(HEAD_MAX)].to_ascii_lowercase();
    let has_length = String::from_utf8_lossy(&head).contains("\r\ncontent-length:");
    let is_known = has_length || !received.contains(&UNKNOWN);
    if is_http1 && is_known { Kind::Broken } else { Kind::Open }
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

#[cfg(test)]
mod tests {
    use super::{picture, row};
    use lameduck_wire::{
        End, Event, Excerpt, Recorder,
        timeline::{Kind, Row},
    };
    use std::time::Duration;

    /// Draws a connection on which a request was sent and this was received.
    fn drawn(received: &[&[u8]], ends: &[End]) -> Row {
        let track = Recorder::new().track("a");
        track.record(Event::Connecting);
        track.record(Event::Sent(Excerpt::of(b"GET / HTTP/1.1\r\n\r\n")));
        for bytes in received {
            track.record(Event::Ended(End::Silent));
            track.record(Event::Received(Excerpt::of(bytes)));
        }
        ends.iter().for_each(|end| track.record(Event::Ended(*end)));
        row(&track)
    }

    // The picture of a failure showed other losses than its text: a response of more than 4 KiB,
    // one without a length, one that was polled for, and all of HTTP/2.
    #[test]
    fn the_picture_has_the_losses_of_the_record() {
        let body = vec![b'x'; 9000];
        let length = [b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n", &body[..]].concat();
        let close = [b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat();
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2328\r\n";
        let chunked = [chunked, &body[..], b"\r\n0\r\n\r\n"].concat();
        let cut = &length[..8000];
        for (received, ends, kind) in [
            (&[&length[..]][..], &[][..], Kind::Completed),
            (&[cut, &length[8000..]], &[], Kind::Completed),
            (&[&close], &[End::Closed], Kind::Completed),
            (&[&close], &[End::Reset], Kind::Open),
            (&[&chunked], &[End::Closed], Kind::Open),
            (&[cut], &[End::Closed], Kind::Broken),
            (&[cut], &[End::Silent], Kind::Broken),
            (&[], &[End::Silent, End::Silent], Kind::Broken),
            (&[], &[End::Reset], Kind::Broken),
            (&[b"\0\0\0\x04\0\0\0\0\0"], &[End::Closed], Kind::Open),
        ] {
            let bars = drawn(received, ends).bars;
            assert_eq!(bars.last().unwrap().kind, kind, "{} {ends:?}", received.len());
            assert_eq!(bars.len(), 2, "{bars:?}");
        }
    }

    // The phase of the stop had no length in scenarios that do not wait for the exit.
    #[test]
    fn a_stop_without_an_exit_lasts_to_the_end() {
        let recorder = Recorder::new();
        let track = recorder.track("a");
        let ms = Duration::from_millis;
        let stop = (ms(0), "SIGTERM".to_owned());
        std::thread::sleep(ms(2));
        track.record(Event::Connecting);
        let tracks = recorder.tracks();
        let ends = |marks: &[_]| picture("a", String::new(), marks, &tracks).bands[1].to;
        assert!(ends(std::slice::from_ref(&stop)) >= ms(2));
        assert_eq!(ends(&[stop, (ms(1), "exit code 0".to_owned())]), ms(1));
    }
}
