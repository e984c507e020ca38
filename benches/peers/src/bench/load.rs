//! 64 busy keep-alive connections, closed loop, by `wrk`.

use crate::{
    median,
    server::{CLIENT_CORE, Server},
};
use serde_json::{Value, json};
use std::{error::Error, process::Command};

const CONNECTIONS: &str = "64";

/// One round.
#[derive(Clone, Copy)]
pub struct Sample {
    user_micros: f64,
    system_micros: f64,
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

pub fn measure(name: &str, seconds: u64) -> Result<Sample, Box<dyn Error>> {
    let server = Server::start(name, &[])?;
    let url = format!("http://{}/", server.address);
    // Warm: allocators, branch predictors, the kernel's buffers.
    wrk(&url, 1)?;
    let before = server.cpu()?;
    let (requests, per_second, p50_micros, p99_micros) = wrk(&url, seconds)?;
    let after = server.cpu()?;
    Ok(Sample {
        user_micros: (after.user - before.user) * 1e6 / requests,
        system_micros: (after.system - before.system) * 1e6 / requests,
        per_second,
        p50_micros,
        p99_micros,
    })
}

fn wrk(url: &str, seconds: u64) -> Result<(f64, f64, f64, f64), Box<dyn Error>> {
    let mut command = Command::new("taskset");
    command
        .args(["-c", CLIENT_CORE, "wrk", "-t1", "-c", CONNECTIONS, "--latency", "-d"])
        .arg(format!("{seconds}s"))
        .arg(url);
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(format!("wrk met errors:\n{text}").into());
    }
    let word = |line: &str, index: usize| {
        let line = text.lines().find(|text| text.contains(line))?;
        line.split_whitespace().nth(index)
    };
    let missing = || format!("wrk (Debian's package `wrk`) said:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    let requests = word("requests in", 0).ok_or_else(missing)?.parse()?;
    let per_second = word("Requests/sec", 1).ok_or_else(missing)?.parse()?;
    let p50 = word(" 50% ", 1).and_then(micros).ok_or_else(missing)?;
    let p99 = word(" 99% ", 1).and_then(micros).ok_or_else(missing)?;
    Ok((requests, per_second, p50, p99))
}

/// `12.34us`, `1.20ms`, `0.91s`.
fn micros(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic())?);
    let unit = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

pub fn summary(samples: &[Sample]) -> Value {
    let of = |what: fn(&Sample) -> f64| median(samples.iter().map(what).collect());
    json!({
        "cpu_micros": of(|sample| sample.user_micros + sample.system_micros),
        "user_micros": of(|sample| sample.user_micros),
        "system_micros": of(|sample| sample.system_micros),
        "per_second": of(|sample| sample.per_second),
        "p50_micros": of(|sample| sample.p50_micros),
        "p99_micros": of(|sample| sample.p99_micros),
    })
}
