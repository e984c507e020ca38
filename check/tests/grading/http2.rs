//! One HTTP/2 connection of the little server: GET requests, GOAWAY twice.

use crate::{
    connection::{Connection, Ended},
    server::{DRAIN, LAME_DUCK, MS, Wait},
};
use lameduck_wire::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM, SETTINGS,
    frame,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Error code of a stream that is no longer wanted.
const CANCEL: u32 = 8;

/// A stream whose response is due.
struct Stream {
    id: u32,
    due: Instant,
}

pub(crate) fn serve(connection: &mut Connection<'_>) -> Result<(), Ended> {
    let (mut streams, mut last): (Vec<Stream>, u32) = (Vec::new(), 0);
    let mut goaways = 0;
    connection.write(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let server = connection.server;
        let was_stopping = server.is_stopping();
        let wait = if streams.is_empty() { Wait::Serving } else { Wait::Tick };
        let has_read = connection.read(wait)?;
        let is_old = !was_stopping || server.since_stop() < 8 * MS;
        let mut reset = 0;
        if has_read && server.fault.starts_with("http2/requests-unread") && last > 0 && is_old {
            thread::sleep(5 * MS);
            if server.is_stopping() {
                reset = match server.fault.as_str() {
                    "http2/requests-unread refused" => REFUSED_STREAM,
                    "http2/requests-unread reset" => CANCEL,
                    _ => return Err(Ended),
                };
            }
        }
        while let Some((kind, flags, id, payload)) = take_frame(&mut connection.buffer) {
            match kind {
                SETTINGS if flags & ACK == 0 => connection.write(&frame(SETTINGS, ACK, 0, &[]))?,
                HEADERS if reset > 0 => {
                    connection.write(&frame(RST_STREAM, 0, id, &reset.to_be_bytes()))?;
                }
                // A GOAWAY with an exact id has excluded later ones.
                HEADERS if goaways < 2 => {
                    last = id;
                    server.log();
                    let due = Instant::now() + slowness(&payload);
                    streams.push(Stream { id, due });
                }
                _ => {}
            }
        }
        let is_cut = server.has("http2/in-flight") && server.is_stopping()
            || server.has("drain/http2") && server.since_stop() > LAME_DUCK + 500 * MS;
        if is_cut {
            let now = Instant::now();
            for stream in streams.iter().filter(|stream| stream.due > now) {
                connection.write(&frame(RST_STREAM, 0, stream.id, &CANCEL.to_be_bytes()))?;
            }
            streams.retain(|stream| stream.due <= now);
        }
        let now = Instant::now();
        for stream in streams.iter().filter(|stream| stream.due <= now) {
            // `:status: 200` by its index.
            let head = frame(HEADERS, END_HEADERS, stream.id, &[0x88]);
            connection.write(&[head, frame(DATA, END_STREAM, stream.id, b"hello")].concat())?;
        }
        streams.retain(|stream| stream.due > now);
        let since_stop = server.since_stop();
        if server.is_stopping() && !server.has("http2/goaway") {
            let first = goaways == 0 && since_stop >= LAME_DUCK / 2;
            let second = goaways == 1 && since_stop >= LAME_DUCK;
            if first || second {
                goaways += 1;
                let id = if server.has("http2/last-stream-id") { 0 } else { last };
                let id = if first { 0x7fff_ffff } else { id };
                let payload = [id.to_be_bytes(), 0_u32.to_be_bytes()].concat();
                connection.write(&frame(GOAWAY, 0, 0, &payload))?;
            }
        }
        let is_done = since_stop >= LAME_DUCK + 20 * MS && streams.is_empty();
        if (is_done || since_stop >= DRAIN) && !server.has("exit/http2") {
            return Err(Ended);
        }
    }
}

/// Returns the first frame, if it is complete.
fn take_frame(buffer: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let header = buffer.get(..9)?;
    let length =
        usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    let (kind, flags) = (header[3], header[4]);
    let id = u32::from_be_bytes(header[5..9].try_into().ok()?);
    buffer.get(..9 + length)?;
    let frame: Vec<u8> = buffer.drain(..9 + length).collect();
    Some((kind, flags, id, frame[9..].to_vec()))
}

/// Reads the time of `/slow?ms=` from a header block of literals.
fn slowness(block: &[u8]) -> Duration {
    let text = String::from_utf8_lossy(block);
    let digits = text.split_once("/slow?ms=").map_or("", |(_, rest)| rest);
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    Duration::from_millis(digits.parse().unwrap_or(0))
}
