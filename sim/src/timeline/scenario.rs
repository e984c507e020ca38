//! Builds the picture of a scenario from its trace.

use super::{Band, Bar, Kind, Mark, Picture, Row, Sign, band};
use crate::{
    oracle::{ObservedRequest, RequestResult, RunHistory},
    scenario::{HeaderFault, Outcome, Pacing, Scenario, Traffic},
    trace::Record,
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use lameduck_wire::timeline::seconds;
use std::{collections::BTreeMap, time::Duration};

/// Builds the picture of a scenario and its outcome.
#[must_use]
pub fn of_scenario(scenario: &Scenario, outcome: &Outcome) -> Picture {
    let history = RunHistory::read(scenario, outcome);
    let last = history
        .exit()
        .map(|(at, _)| at)
        .or(history.records.last().map(|record| record.at))
        .unwrap_or_default();
    let begins = scenario.first_stop_ms().map_or(Duration::ZERO, Duration::from_millis);
    let shutdown = last.saturating_sub(begins).max(Duration::from_millis(10));
    let bands = bands(&history, last);
    Picture {
        title: scenario.about.clone(),
        outcome: ending(outcome),
        from: begins.saturating_sub(shutdown.mul_f64(0.35)),
        to: last + shutdown.mul_f64(0.04),
        bands,
        stops: stops(&history),
        deadlines: deadlines(&history),
        rows: hooks(&history, last).into_iter().chain(connections(&history)).collect(),
    }
}

fn ending(outcome: &Outcome) -> String {
    let Some(report) = &outcome.report else {
        return "no report: the watchdog ended the process".to_owned();
    };
    let requests = &report.requests;
    format!(
        "{} requests: {} finished, {} timed out, {} aborted, {} gone · shutdown {} of at most {} · \
         exit code {}",
        requests.started,
        requests.finished,
        requests.timed_out,
        requests.aborted,
        requests.gone,
        seconds(report.shutdown),
        seconds(report.worst_case),
        report.code(),
    )
}

fn bands(history: &RunHistory<'_>, last: Duration) -> Vec<Band> {
    let ends = history.phases.iter().skip(1).map(|(_, _, at)| *at).chain([last]);
    history.phases.iter().zip(ends).map(|((phase, _, from), to)| band(*phase, *from, to)).collect()
}

fn stops(history: &RunHistory<'_>) -> Vec<Mark> {
    let observed = |record: &&Record| {
        matches!(record.event, "signal" | "shutdown handle")
            && record.text("delivery") != Some("no receiver")
    };
    let what = |record: &Record| record.text("signal").unwrap_or("stop()").to_owned();
    history
        .records
        .iter()
        .filter(observed)
        .map(|record| Mark { at: record.at, what: what(record) })
        .collect()
}

fn deadlines(history: &RunHistory<'_>) -> Vec<Mark> {
    let plan = history.scenario.plan();
    let mut all = Vec::new();
    let mut after = |phase, span, what: &str| {
        if let Some(began) = history.began(phase) {
            all.push(Mark { at: began + history.world(span), what: what.to_owned() });
        }
    };
    after(Phase::LameDuck, plan.lame_duck, "delay ends");
    after(Phase::Draining, plan.drain, "drain limit");
    after(Phase::Cancelling, plan.cancel.saturating_sub(ABORT_FLUSH), "abort");
    all
}

fn hooks(history: &RunHistory<'_>, last: Duration) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for hook in &history.scenario.hooks {
        let mine = |event| {
            history.server(event).filter(|record| record.text("hook") == Some(hook.name.as_str()))
        };
        let mut bars = Vec::new();
        for begins in mine("hook begins") {
            let half = begins.text("stage").unwrap_or_default();
            let scripted = if half == "stop" { hook.stop.end } else { hook.start.end };
            let ends = mine("hook ends").find(|record| record.text("stage") == Some(half));
            // A hook that was given up or panicked has no end in the trace; its log line has the
            // time.
            let lost = || {
                mine("log").find(|record| {
                    record.at >= begins.at && record.text("message") != Some("hook done")
                })
            };
            let to = ends
                .map(|record| record.at)
                .or_else(|| lost().map(|record| record.at))
                .unwrap_or(last);
            let well = ends.is_some() && scripted == crate::hooks::ActEnd::Done;
            let kind = if well { Kind::Hook } else { Kind::HookBroken };
            bars.push(Bar { from: begins.at, to, kind, label: half.to_owned() });
        }
        rows.push(Row { label: format!("hook {}", hook.name), bars, marks: Vec::new() });
    }
    rows
}

/// Returns one row per connection, in the order in which the connections were opened.
fn connections(history: &RunHistory<'_>) -> Vec<Row> {
    let mut made: BTreeMap<(usize, u64), Connection> = BTreeMap::new();
    for record in &history.records {
        let Some(client) = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Some(number) = record.number("connection") else { continue };
        let connection = made.entry((client, number)).or_insert_with(|| Connection::new(record.at));
        connection.to = connection.to.max(record.at);
        match record.event {
            "goaway" => connection.marks.push((record.at, Sign::Goaway)),
            "closed idle" | "ended" => {
                let sign = if matches!(record.text("how"), Some("reset" | "broken")) {
                    Sign::Reset
                } else {
                    Sign::Fin
                };
                connection.marks.push((record.at, sign));
            }
            _ => {}
        }
    }
    for observed in &history.requests {
        if let Some(connection) = made.get_mut(&(observed.client, observed.connection)) {
            connection.carry(observed);
        }
    }
    let mut rows: Vec<_> = made.into_iter().collect();
    rows.sort_by_key(|(_, connection)| connection.from);
    rows.into_iter()
        .map(|((client, _), mut connection)| {
            let open = Bar {
                from: connection.from,
                to: connection.to,
                kind: Kind::Open,
                label: String::new(),
            };
            connection.bars.insert(0, open);
            let kind =
                history.scenario.clients.get(client).map_or("", |client| name(&client.traffic));
            Row {
                label: format!("{client}  {kind}"),
                bars: connection.bars,
                marks: connection.marks,
            }
        })
        .collect()
}

struct Connection {
    from: Duration,
    to: Duration,
    bars: Vec<Bar>,
    marks: Vec<(Duration, Sign)>,
}

impl Connection {
    const fn new(at: Duration) -> Self {
        Self { from: at, to: at, bars: Vec::new(), marks: Vec::new() }
    }

    fn carry(&mut self, observed: &ObservedRequest) {
        let Some((to, end)) = &observed.end else { return };
        self.to = self.to.max(*to);
        let (kind, said) = match end {
            RequestResult::Completed(408 | 503, _) => {
                (Kind::Refused, observed.head.map_or(0, |(_, status, _)| status).to_string())
            }
            RequestResult::Completed(status, _) => (Kind::Completed, status.to_string()),
            RequestResult::Failed(how) => (Kind::Broken, how.clone()),
        };
        let path = observed.target.split('?').next().unwrap_or_default();
        self.bars.push(Bar {
            from: observed.observed,
            to: *to,
            kind,
            label: format!("{path} {said}"),
        });
        match (end, observed.head) {
            (RequestResult::Completed(..), Some((_, _, true))) => {
                self.marks.push((*to, Sign::Close));
            }
            (RequestResult::Failed(how), _) if how.starts_with("reset") => {
                self.marks.push((*to, Sign::Reset));
            }
            (RequestResult::Completed(..) | RequestResult::Failed(_), _) => {}
        }
    }
}

const fn name(traffic: &Traffic) -> &'static str {
    match traffic {
        Traffic::Once(Pacing::Prompt) => "one request",
        Traffic::Once(Pacing::HeadPause(_)) => "head in two parts",
        Traffic::Once(Pacing::SlowUpload(..)) => "slow upload",
        Traffic::Once(Pacing::SlowReader(..)) => "slow reader",
        Traffic::Once(Pacing::HalfClosed) => "half-closed",
        Traffic::KeepAlive { .. } => "keep-alive",
        Traffic::PerRequest { .. } => "per request",
        Traffic::Http2 { .. } => "HTTP/2",
        Traffic::Http2GoesOn { .. } => "HTTP/2, goes on",
        Traffic::Http2Leaves { .. } => "HTTP/2, unread",
        Traffic::Http2Windowless { .. } => "HTTP/2, no window",
        Traffic::Http2Resets { .. } => "HTTP/2, resets",
        Traffic::Http2HalfFrame { .. } => "HTTP/2, half a frame",
        Traffic::Http2Upload { .. } => "HTTP/2, slow upload",
        Traffic::Http2Slowly { .. } => "HTTP/2, slow reader",
        Traffic::Stalls { .. } => "stops reading",
        Traffic::Http2Stalls { .. } => "HTTP/2, stops reading",
        Traffic::InternalStrangers { .. } => "strangers, internal",
        Traffic::InternalHalfHead => "partial head, internal",
        Traffic::Pipelined { .. } => "pipelined",
        Traffic::Session { .. } => "in sequence",
        Traffic::Late { .. } => "late first byte",
        Traffic::Leaves { .. } => "leaves",
        Traffic::ByteLess => "no byte",
        Traffic::HalfHead => "a partial head",
        Traffic::SilentHttp2 => "silent HTTP/2",
        Traffic::SlowHttp2 { .. } => "slow HTTP/2 preface",
        Traffic::SlowHello { .. } => "slow TLS handshake",
        Traffic::Abandons { .. } => "gives up connecting",
        Traffic::InPieces(_) => "a head in pieces",
        Traffic::SendsOn(_) => "sends on after its end",
        Traffic::BadHeader(HeaderFault::Missing) => "no PROXY header",
        Traffic::BadHeader(HeaderFault::Invalid) => "bad PROXY header",
        Traffic::BadHeader(HeaderFault::Half) => "half a PROXY header",
        Traffic::BadHeader(HeaderFault::Unexpected) => "unexpected PROXY header",
        Traffic::Upgraded { .. } => "upgraded",
    }
}
