//! The table, as Markdown: medians, and each as a ratio to the two servers that lameduck wants to be held against.

use serde_json::Value;
use std::io::{self, Write};

/// A row: its name, where it is found in a server's results, how it is printed.
type Row = (&'static str, &'static str, fn(f64) -> String);

const ROWS: [Row; 16] = [
    ("instructions a request (callgrind, 64 connections)", "/instructions", whole),
    ("CPU a request, µs", "/load/cpu_micros/median", fine),
    ("– user, µs", "/load/user_micros/median", fine),
    ("– system, µs", "/load/system_micros/median", fine),
    ("requests/s, 64 connections, one core", "/load/per_second/median", whole),
    ("p50, µs", "/load/p50_micros/median", whole),
    ("p99, µs", "/load/p99_micros/median", whole),
    ("bytes an idle connection, served once", "/idle_served_once/bytes/median", whole),
    ("– at the peak of the burst", "/idle_served_once/peak_bytes/median", whole),
    ("bytes an idle connection, byte-less", "/idle_byteless/bytes/median", whole),
    ("– at the peak of the burst", "/idle_byteless/peak_bytes/median", whole),
    ("idle connections closed after the stop, ms", "/idle_served_once/close_millis/median", fine),
    ("– byte-less ones, ms", "/idle_byteless/close_millis/median", fine),
    ("last of them closed to exit, ms", "/idle_served_once/exit_millis/median", fine),
    ("binary, MB", "/binary_bytes", |bytes| fine(bytes / 1e6)),
    ("spread of CPU a request over the rounds, %", "/load/cpu_micros/spread", |spread| whole(spread * 100.0)),
];

/// Printed beside the numbers of lameduck.
const HELD_AGAINST: [&str; 2] = ["bare", "axum"];

pub fn print(results: &[Value], out: &mut impl Write) -> io::Result<()> {
    let name = |result: &Value| result["server"].as_str().unwrap_or_default().to_owned();
    let find = |server: &str| results.iter().find(|result| name(result) == server);
    let (ours, others) = (find("lameduck"), HELD_AGAINST.map(|server| (server, find(server))));
    write!(out, "| |")?;
    for result in results {
        write!(out, " {} |", name(result))?;
    }
    for (server, _) in others {
        write!(out, " lameduck ÷ {server} |")?;
    }
    writeln!(out, "\n|---|{}", "---:|".repeat(results.len() + others.len()))?;
    for (title, path, text) in ROWS {
        let value = |result: &Value| result.pointer(path).and_then(Value::as_f64);
        if results.iter().all(|result| value(result).is_none()) {
            continue;
        }
        write!(out, "| {title} |")?;
        for result in results {
            write!(out, " {} |", value(result).map(text).unwrap_or_default())?;
        }
        for (_, other) in others {
            let ratio = ours.and_then(value).zip(other.and_then(value)).filter(|(_, other)| *other > 0.0);
            write!(out, " {} |", ratio.map(|(ours, other)| fine(ours / other)).unwrap_or_default())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn fine(number: f64) -> String {
    format!("{number:.2}")
}
