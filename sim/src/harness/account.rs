//! What happened in a run, as text: the scenario in words, the timeline, and the log of the host,
//! the service and its clients.

use super::{downstream::EFFECT, proof::ADDED};
use crate::{
    draw::FOR_GOOD_MS,
    scenario::{Client, DownstreamFault, Fault, Outcome, Pacing, Scenario, Traffic},
    timeline::of_scenario,
    trace::Record,
};
use std::fmt::{self, Write};

/// The most lines of the log in a message.
const LINES_MAX: usize = 60;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) timeline: String,
    pub(super) log: Vec<String>,
    pub(super) svg: String,
    pub(super) trace: String,
    /// The names of the downstreams, in their order.
    pub(super) downstreams: Vec<String>,
    /// Why it may not happen again.
    pub(super) note: Option<String>,
    /// Whether no single run shows the failure.
    pub(super) of_all_runs: bool,
    /// Where the failure was saved.
    pub(super) saved: Option<String>,
}

impl Account {
    pub(super) fn of(scenario: &Scenario, outcome: &Outcome) -> Self {
        let picture = of_scenario(scenario, outcome);
        let records = outcome.trace.records();
        let added = records.iter().filter(|record| record.event == ADDED);
        Self {
            downstreams: added.filter_map(|it| it.text("what").map(ToOwned::to_owned)).collect(),
            timeline: picture.to_string(),
            log: records.iter().filter_map(line).collect(),
            svg: picture.svg(),
            trace: outcome.trace.text(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.timeline.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{}", self.timeline)?;
        let hidden = self.log.len().saturating_sub(LINES_MAX);
        if hidden > 0 {
            writeln!(f, "({hidden} earlier lines)")?;
        }
        for line in &self.log[hidden..] {
            writeln!(f, "{line}")?;
        }
        writeln!(f)
    }
}

/// Returns the line of a record, unless it is of no interest to a reader.
fn line(record: &Record) -> Option<String> {
    let words = words(record)?;
    Some(format!("{:>8.3} s  {:<9} {words}", record.at.as_secs_f64(), record.actor))
}

/// Returns the content of a record, without its time and actor.
pub(super) fn words(record: &Record) -> Option<String> {
    let text = |name| record.text(name).unwrap_or_default();
    let number = |name| record.number(name).unwrap_or_default();
    Some(match record.event {
        "phase" => format!("── {} ──", text("phase")),
        "signal" => format!("{} arrives", text("signal")),
        "shutdown handle" => "a stop is requested by code".to_owned(),
        "service log" => {
            let spans = text("spans");
            let spans = if spans.is_empty() { String::new() } else { format!("{spans}: ") };
            let words = [text("message"), text("fields")];
            format!("{} {} {spans}{}", text("level"), text("target"), join(&words))
        }
        "log" => {
            let mut words = text("message").to_owned();
            for (name, value) in record.fields.iter().filter(|(name, _)| *name != "message") {
                // Writing to a string cannot fail.
                let _ = write!(words, " {name}={value}");
            }
            format!("host: {words}")
        }
        "panic" => format!("panic at {}: {}", text("at"), text("message")),
        "exit" => format!("exit with code {}", number("code")),
        "tasks left" => format!("untracked tasks at the exit: {}", number("count")),
        EFFECT => text("what").to_owned(),
        "asks" => format!("request {}: {} {}", number("request"), text("method"), text("target")),
        "completed" => format!("request {}: response {}", number("request"), number("status")),
        "failed" => format!("request {}: no response, {}", number("request"), text("how")),
        "connect failed" => format!("cannot connect: {}", text("how")),
        "call status" => format!("request {}: gRPC status {}", number("request"), number("status")),
        "messages" | "call messages" => {
            let said =
                record.text("message").map_or_else(String::new, |said| format!(", {said:?}"));
            format!("request {}: {} messages received{said}", number("request"), number("count"))
        }
        _ => return None,
    })
}

fn join(words: &[&str]) -> String {
    words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

/// Describes a scenario, one line for each client and fault. `downstreams` are the names of these.
pub(super) fn in_words(scenario: &Scenario, downstreams: &[String]) -> String {
    let mut words = String::new();
    for stop in &scenario.stops {
        let _ = write!(words, "stop requested at {} ms ({:?})", stop.at_ms, stop.by);
    }
    for client in &scenario.clients {
        let _ = write!(words, "\n  at {:>6} ms a client {}", client.at_ms, of_client(client));
    }
    for fault in &scenario.faults {
        let _ = write!(words, "\n  {}", of_fault(*fault, downstreams));
    }
    words
}

fn of_client(client: &Client) -> String {
    let request = client.request_kind.user().map_or_else(String::new, ToString::to_string);
    match client.traffic {
        Traffic::Once(Pacing::HalfClosed) => {
            format!("sends {request} and shuts down its write side")
        }
        Traffic::Once(_) => format!("sends {request}"),
        Traffic::Session { times: 1, .. } | Traffic::KeepAlive { requests: 1, .. } => {
            format!("sends {request}")
        }
        Traffic::Http2 { requests: 1, .. } => format!("sends {request} over HTTP/2"),
        Traffic::Session { times, every_ms } => {
            format!("sends {request}, {times} times, {every_ms} ms apart")
        }
        Traffic::KeepAlive { requests, every_ms, .. } => {
            format!("sends {request} {requests} times on one connection, {every_ms} ms apart")
        }
        Traffic::PerRequest { requests, every_ms } => format!(
            "sends {request} {requests} times, each on a new connection, {every_ms} ms apart"
        ),
        Traffic::Http2 { requests, every_ms } => {
            format!("sends {request} {requests} times over HTTP/2, {every_ms} ms apart")
        }
        Traffic::Pipelined { requests, .. } => format!("sends {request} {requests} times at once"),
        Traffic::Late { after_ms, .. } => {
            format!("connects, and sends {request} after {after_ms} ms")
        }
        Traffic::Leaves { after_ms, resets, .. } => format!(
            "sends {request} and {} the connection after {after_ms} ms",
            if resets { "resets" } else { "closes" }
        ),
        Traffic::ByteLess => "connects and sends nothing".to_owned(),
        Traffic::HalfHead => format!("sends half of the head of {request}"),
        Traffic::Http2Leaves { .. }
        | Traffic::Http2GoesOn { .. }
        | Traffic::Http2Windowless { .. }
        | Traffic::Http2Resets { .. }
        | Traffic::Http2HalfFrame { .. }
        | Traffic::Http2Upload { .. }
        | Traffic::Http2Slowly { .. }
        | Traffic::Http2Stalls { .. }
        | Traffic::Stalls { .. }
        | Traffic::InternalHalfHead
        | Traffic::InternalStrangers { .. }
        | Traffic::SilentHttp2
        | Traffic::SlowHttp2 { .. }
        | Traffic::SlowHello { .. }
        | Traffic::Abandons { .. }
        | Traffic::InPieces(_)
        | Traffic::SendsOn(_)
        | Traffic::BadHeader(_)
        | Traffic::Upgraded { .. } => format!("{:?}", client.traffic),
    }
}

pub(super) fn of_fault(fault: Fault, downstreams: &[String]) -> String {
    match fault {
        Fault::Hold { at_ms, for_ms } => {
            format!("at {at_ms:>6} ms the clients' packets are held back for {for_ms} ms")
        }
        Fault::Downstream { downstream, at_ms, for_ms, how } => {
            let how = match how {
                DownstreamFault::Slow => "is slow",
                DownstreamFault::Refuses => "refuses connections and resets open ones",
                DownstreamFault::Resets => "resets its connections",
                DownstreamFault::Stalls => "stops responding",
                DownstreamFault::Gone => "is gone from the network",
            };
            let span = if for_ms >= FOR_GOOD_MS {
                "for good".to_owned()
            } else {
                format!("for {for_ms} ms")
            };
            let name = usize::try_from(downstream % downstreams.len().max(1) as u64)
                .ok()
                .and_then(|place| downstreams.get(place).cloned());
            let name = name.unwrap_or_else(|| format!("number {downstream}"));
            format!("at {at_ms:>6} ms the downstream {name} {how}, {span}")
        }
        Fault::PartialIo { .. }
        | Fault::NoDescriptors { .. }
        | Fault::AcceptAborted
        | Fault::Stall { .. }
        | Fault::ResetAll { .. } => format!("{fault:?}"),
    }
}
