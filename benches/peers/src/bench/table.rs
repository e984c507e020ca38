//! The tables, as Markdown: medians with half of their spread, and the ratios of lameduck to the
//! two servers that it is compared with.

use crate::conditions;
use serde_json::Value;
use std::io::{self, Write};

/// A row: its title, its path in a server's results, and its number format.
type Row = (&'static str, &'static str, fn(f64) -> String);

const COSTS: [Row; 45] = [
    ("CPU a request, µs (64 connections)", "load/cpu_micros", fine),
    ("– user, µs", "load/user_micros", fine),
    ("– system, µs", "load/system_micros", fine),
    ("user CPU a request by samples, µs", "sampled/user_micros", fine),
    ("– system", "sampled/system_micros", fine),
    ("requests/s", "load/per_second", whole),
    ("p50, µs", "load/p50_micros", whole),
    ("p99, µs", "load/p99_micros", whole),
    ("one connection: p50, µs", "one/p50_micros", whole),
    ("– p99, µs", "one/p99_micros", whole),
    ("– requests/s", "one/per_second", whole),
    ("pipelined × 16: requests/s", "pipelined/per_second", whole),
    ("– CPU a request, µs", "pipelined/cpu_micros", fine),
    ("HTTP/2, 8 × 32 streams: requests/s", "http2/per_second", whole),
    ("– CPU a request, µs", "http2/cpu_micros", fine),
    ("first response after exec, ms", "start/millis", fine),
    ("bytes an idle connection, served once", "idle/bytes", whole),
    ("– at the peak of the burst", "idle/peak_bytes", whole),
    ("bytes an idle connection, byte-less", "byteless/bytes", whole),
    ("– at the peak of the burst", "byteless/peak_bytes", whole),
    ("idle connections closed after the stop, ms", "idle/close_millis", whole),
    ("– the last of them to exit, ms", "idle/exit_millis", fine),
    ("– stop to exit, ms", "idle/stop_millis", whole),
    ("byte-less ones closed, ms", "byteless/close_millis", whole),
    ("– stop to exit, ms", "byteless/stop_millis", whole),
    ("last response to exit, ms", "last_response/exit_millis", fine),
    ("– of 64 responses, lost", "last_response/lost", whole),
    ("open loop at 30 % of a connection a request: requests/s", "draining/rate", whole),
    ("– p50 steady, µs", "draining/steady_p50_micros", whole),
    ("– p99 steady, µs", "draining/steady_p99_micros", whole),
    ("– p50 between stop and exit, µs", "draining/draining_p50_micros", whole),
    ("– p99 between stop and exit, µs", "draining/draining_p99_micros", whole),
    ("– p99, stop to exit ÷ steady", "draining/p99_ratio", fine),
    ("– the same without the last tenth of the delay", "draining/early_p99_ratio", fine),
    ("– responses between stop and exit", "draining/responses_draining", whole),
    ("– **lost**", "draining/lost", whole),
    ("– stop to exit, ms", "draining/stop_millis", whole),
    ("open loop at 30 % of kept connections: requests/s", "draining_kept/rate", whole),
    ("– p99 steady, µs", "draining_kept/steady_p99_micros", whole),
    ("– p99 between stop and exit, µs", "draining_kept/draining_p99_micros", whole),
    ("– p99, stop to exit ÷ steady", "draining_kept/p99_ratio", fine),
    ("– the same without the last tenth of the delay", "draining_kept/early_p99_ratio", fine),
    ("– responses between stop and exit", "draining_kept/responses_draining", whole),
    ("– **lost**", "draining_kept/lost", whole),
    ("binary, MB", "binary/bytes", |bytes| fine(bytes / 1e6)),
];

const COUNTS: [Row; 1] =
    [("instructions a request (callgrind, 64 connections)", "instructions/per_request", whole)];

const SLOPES: [Row; 14] = [
    ("KB with 1,000 idle connections", "slopes/resident_1000", kilobytes),
    ("KB with 5,000", "slopes/resident_5000", kilobytes),
    ("KB with 10,000", "slopes/resident_10000", kilobytes),
    ("stop to exit with 100, ms", "slopes/stop_millis_100", fine),
    ("– with 1,000, ms", "slopes/stop_millis_1000", fine),
    ("– with 10,000, ms", "slopes/stop_millis_10000", fine),
    ("all 100 closed, ms", "slopes/close_millis_100", fine),
    ("– 10,000, ms", "slopes/close_millis_10000", fine),
    ("KB with 1 worker", "workers/resident_1", kilobytes),
    ("KB with 2", "workers/resident_2", kilobytes),
    ("KB with 4", "workers/resident_4", kilobytes),
    ("first response with 1 worker, ms", "workers/start_millis_1", fine),
    ("– with 2, ms", "workers/start_millis_2", fine),
    ("– with 4, ms", "workers/start_millis_4", fine),
];

const TLS: [Row; 11] = [
    ("CPU a request, µs (64 connections)", "tls/cpu_micros", fine),
    ("– user, µs", "tls/user_micros", fine),
    ("requests/s", "tls/per_second", whole),
    ("p50, µs", "tls/p50_micros", whole),
    ("p99, µs", "tls/p99_micros", whole),
    ("CPU a handshake, its connection and one request, µs", "handshakes/cpu_micros", fine),
    ("handshakes/s", "handshakes/per_second", whole),
    ("bytes an idle connection, served once", "tls_idle/bytes", whole),
    ("– at the peak of the burst", "tls_idle/peak_bytes", whole),
    ("idle connections closed after the stop, ms", "tls_idle/close_millis", whole),
    ("– stop to exit, ms", "tls_idle/stop_millis", whole),
];

const GRPC: [Row; 2] = [
    ("CPU a unary call, µs (8 connections, 32 streams)", "grpc/cpu_micros", fine),
    ("calls/s", "grpc/per_second", whole),
];

const RUNTIMES: [Row; 10] = [
    ("the same cost for each request: CPU a request, µs", "uniform/cpu_micros", fine),
    ("– requests/s", "uniform/per_second", whole),
    ("– p99, µs", "uniform/p99_micros", whole),
    ("one request in 100 computes for 20 ms: p50 of the others, µs", "skewed/p50_micros", whole),
    ("– p99, µs", "skewed/p99_micros", whole),
    ("2 HTTP/2 connections, 32 streams: CPU a request, µs", "few_http2/cpu_micros", fine),
    ("– requests/s", "few_http2/per_second", whole),
    ("a thread is blocked for 1 s: p50 of the others, µs", "blocked/p50_micros", whole),
    ("– p99, µs", "blocked/p99_micros", whole),
    ("– slower than 100 ms, %", "blocked/slow_percent", fine),
];

/// The server whose ratios to others are printed, and these.
type Ratios = (&'static str, &'static [&'static str]);

const OVER_HTTP: Ratios = ("lameduck", &["bare", "axum"]);
const OVER_TOKIO: Ratios = ("lameduck_tokio", &["axum", "lameduck_axum"]);
const OVER_TLS: Ratios = ("lameduck_tls", &["bare_tls", "nginx_tls"]);
const OVER_GRPC: Ratios = ("lameduck_grpc", &["tonic_grpc"]);

pub fn print(results: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", conditions::sentence(&results["run"]))?;
    let servers = results["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    // The others have tables of their own, and their binaries are no row of the first.
    let is_other = |server: &&Value| {
        let name = server["name"].as_str().unwrap_or_default();
        ["_tls", "_grpc", "_tokio"].iter().any(|end| name.ends_with(end))
    };
    let all: Vec<&Value> = servers.iter().collect();
    let (others, plain): (Vec<&Value>, Vec<&Value>) = servers.iter().partition(is_other);
    rows(&COSTS, &plain, OVER_HTTP, out)?;
    rows(&COUNTS, &plain, OVER_HTTP, out)?;
    rows(&SLOPES, &plain, OVER_HTTP, out)?;
    rows(&RUNTIMES, &all, OVER_TOKIO, out)?;
    rows(&TLS, &others, OVER_TLS, out)?;
    rows(&GRPC, &others, OVER_GRPC, out)
}

/// Returns the median at `path`, or the spread if `|spread` follows: the largest minus the smallest
/// of the rounds, relative to the median.
pub fn number(server: &Value, path: &str) -> Option<f64> {
    let (path, what) = path.split_once('|').unwrap_or((path, "median"));
    server.pointer(&format!("/{path}/{what}"))?.as_f64()
}

fn rows(rows: &[Row], servers: &[&Value], ratios: Ratios, out: &mut impl Write) -> io::Result<()> {
    let told = |row: &&Row| servers.iter().any(|server| number(server, row.1).is_some());
    let rows: Vec<&Row> = rows.iter().filter(told).collect();
    let servers: Vec<&Value> = servers
        .iter()
        .copied()
        .filter(|server| rows.iter().any(|row| number(server, row.1).is_some()))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let name = |server: &Value| server["name"].as_str().unwrap_or_default().to_owned();
    let find = |wanted: &str| servers.iter().copied().find(|server| name(server) == wanted);
    let (ours, against) = ratios;
    let others: Vec<_> =
        against.iter().filter_map(|other| Some((*other, (find(ours)?, find(other)?)))).collect();
    write!(out, "\n| |")?;
    for server in &servers {
        write!(out, " {} |", name(server))?;
    }
    for (server, _) in &others {
        write!(out, " {ours} ÷ {server} |")?;
    }
    writeln!(out, "\n|---|{}", "---:|".repeat(servers.len() + others.len()))?;
    for (title, path, text) in rows {
        write!(out, "| {title} |")?;
        for server in &servers {
            let spread =
                number(server, &format!("{path}|spread")).filter(|spread| *spread >= 0.005);
            let spread =
                spread.map(|spread| format!(" ±{:.0} %", spread * 50.0)).unwrap_or_default();
            write!(out, " {}{spread} |", number(server, path).map(text).unwrap_or_default())?;
        }
        for (_, (ours, other)) in &others {
            let ratio =
                number(ours, path).zip(number(other, path)).filter(|(_, other)| *other > 0.0);
            write!(
                out,
                " {} |",
                ratio.map(|(ours, other)| fine(ours / other)).unwrap_or_default()
            )?;
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

fn kilobytes(bytes: f64) -> String {
    whole(bytes / 1024.0)
}
