//! The sometimes-table: states that exploration must reach, each with a description and a test.
//!
//! An oracle whose promise is never exercised proves nothing, and a generator does not show which
//! states it never draws. The states that must be reached are therefore declared here by hand. A
//! run of at least [`REACHES_ALL`](super::REACHES_ALL) scenarios that misses one of them fails.

mod calls;
mod caps;
mod coincidences;
mod control;
mod coverage;
mod handler_closes;
mod head_requests;
mod headers;
mod noise;
mod serving;
mod waiting;
mod workers;

pub(super) use coverage::Coverage;

use super::{SURFACE, Seen};
use crate::{
    draw::STOPS,
    oracle::RunHistory,
    scenario::{Fault, Pacing, StopBy, Traffic},
    tasks::Until,
};
use lameduck::lifecycle::{GiveUp, HookResult, HookVerdict, Phase, StopReason};
use std::{fmt, sync::OnceLock, time::Duration};

/// A state that must be reached sometimes.
pub struct Sometimes {
    /// Description of the state.
    pub what: String,
    test: Box<dyn Fn(&Coverage<'_>) -> bool + Send + Sync>,
}

impl fmt::Debug for Sometimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sometimes").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Sometimes {
    fn new(
        what: impl Into<String>,
        test: impl Fn(&Coverage<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { what: what.into(), test: Box::new(test) }
    }

    pub(super) fn is_reached(&self, coverage: &Coverage<'_>) -> bool {
        (self.test)(coverage)
    }
}

/// Returns all states.
#[must_use]
pub fn sometimes() -> &'static [Sometimes] {
    static ALL: OnceLock<Vec<Sometimes>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        stops(&mut all);
        edges(&mut all);
        clients(&mut all);
        requests(&mut all);
        hooks(&mut all);
        extras(&mut all);
        faults(&mut all);
        coincidences::coincidences(&mut all);
        serving::serving(&mut all);
        waiting::waiting(&mut all);
        calls::calls(&mut all);
        headers::headers(&mut all);
        caps::caps(&mut all);
        workers::workers(&mut all);
        control::control(&mut all);
        head_requests::head_requests(&mut all);
        handler_closes::handler_closes(&mut all);
        noise::noise(&mut all);
        surface(&mut all);
        all
    })
}

fn surface(all: &mut Vec<Sometimes>) {
    for (item, seen) in SURFACE {
        let what = format!("surface: {item}");
        match *seen {
            Seen::Target(part) => all.push(Sometimes::new(what, move |coverage| {
                let mut begun = coverage.history.server("handler begins");
                begun
                    .any(|record| record.text("target").is_some_and(|target| target.contains(part)))
            })),
            Seen::Event(event) => all.push(Sometimes::new(what, move |coverage| {
                coverage.history.server(event).next().is_some()
            })),
            Seen::Always | Seen::Setting | Seen::Nowhere(_) => {}
        }
    }
    for (what, part) in [
        ("a body with empty frames", "/padded?"),
        ("a 101 that no handler takes", "/upgrade?taken=no"),
        ("a handler that panics when dropped", "drop=panics"),
    ] {
        all.push(Sometimes::new(format!("surface: {what}"), move |coverage| {
            let mut begun = coverage.history.server("handler begins");
            begun.any(|record| record.text("target").is_some_and(|target| target.contains(part)))
        }));
    }
    all.push(Sometimes::new("surface: a check that hangs", |coverage| {
        coverage.history.server("check hangs").next().is_some()
    }));
    all.push(Sometimes::new(
        "surface: an HTTP/2 client that waits for SETTINGS, in the delay",
        |coverage| {
            let stop = coverage.history.left_serving().unwrap_or(Duration::MAX);
            coverage.history.requests.iter().any(|observed| {
                observed.head.is_some()
                    && observed.observed > stop
                    && coverage
                        .history
                        .client(observed)
                        .is_some_and(|client| client.waits_for_settings)
            })
        },
    ));
}

fn stops(all: &mut Vec<Sometimes>) {
    for by in STOPS {
        for phase in [Phase::Starting, Phase::Serving] {
            all.push(Sometimes::new(
                format!("stop: the first by {by:?} in {phase}"),
                move |coverage| coverage.stops.first() == Some(&(phase, by)),
            ));
        }
        // A signal in the last instant of the process is no longer received.
        for phase in [Phase::LameDuck, Phase::Draining, Phase::Cancelling, Phase::CleaningUp] {
            all.push(Sometimes::new(
                format!("stop: a further one by {by:?} in {phase}"),
                move |coverage| coverage.stops.iter().skip(1).any(|stop| *stop == (phase, by)),
            ));
        }
    }
    all.push(Sometimes::new("stop: four further signals", |coverage| {
        coverage
            .stops
            .iter()
            .skip(1)
            .filter(|(_, by)| matches!(by, StopBy::Sigint | StopBy::Sigquit))
            .count()
            >= 4
    }));
}

fn edges(all: &mut Vec<Sometimes>) {
    let mut edge = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("edge: {what}"), test));
    };
    edge("starting, serving", |coverage| coverage.history.began(Phase::Serving).is_some());
    edge("starting, cleaning up: a stop", |coverage| {
        coverage.ended_in_start() && coverage.code() == Some(0)
    });
    edge("starting, cleaning up: a start hook that failed", |coverage| {
        coverage.started_with(&[HookResult::Failed])
    });
    edge("starting, cleaning up: the limit of the start", |coverage| {
        let report = coverage.history.outcome.report.as_ref();
        report.is_some_and(|report| report.reason == Some(StopReason::StartTimedOut))
    });
    edge("lame duck, draining: the delay ended", |coverage| {
        let delay = coverage.history.scenario.plan().lame_duck;
        !delay.is_zero() && coverage.lasted(Phase::LameDuck, delay)
    });
    edge("lame duck, draining: no delay", |coverage| {
        coverage.history.scenario.plan.lame_duck == 0
            && coverage.history.began(Phase::Draining).is_some()
    });
    edge("lame duck, draining: impatience", |coverage| coverage.hurried(Phase::LameDuck));
    edge("draining, cancelling: empty", |coverage| {
        coverage.in_flight_at(Phase::Cancelling) == Some(0)
            && !coverage.lasted(Phase::Draining, coverage.history.scenario.plan().drain)
    });
    edge("draining, cancelling: the limit", |coverage| {
        let limit = coverage.history.scenario.plan().drain;
        !limit.is_zero()
            && coverage.lasted(Phase::Draining, limit)
            && coverage.in_flight_at(Phase::Cancelling) > Some(0)
    });
    edge("draining, cancelling: impatience", |coverage| coverage.hurried(Phase::Draining));
    edge("cancelling, cleaning up: all returned", |coverage| {
        coverage.history.server("handler cancelled").next().is_some() && coverage.code() == Some(0)
    });
    edge("cancelling, cleaning up: the abort", |coverage| {
        coverage.history.scenario.plan.cancel > 250
            && coverage.lasted(
                Phase::Cancelling,
                coverage.history.scenario.plan().cancel - Duration::from_millis(250),
            )
    });
    edge("cancelling, cleaning up: the cut", |coverage| {
        coverage.history.scenario.plan.cancel > 0
            && coverage.lasted(Phase::Cancelling, coverage.history.scenario.plan().cancel)
    });
    edge("cancelling, cleaning up: impatience", |coverage| coverage.hurried(Phase::Cancelling));
    edge("cleaning up, stopped: the hooks' limit", |coverage| {
        let plan = coverage.history.scenario.plan();
        !plan.cleanup.is_zero() && coverage.lasted(Phase::CleaningUp, plan.cleanup)
    });
    for code in [0, 1, 3, 4] {
        all.push(Sometimes::new(format!("exit code {code}"), move |coverage| {
            coverage.code() == Some(code)
        }));
    }
}

/// Tests the kind of a client.
type Is = fn(&Traffic) -> bool;

fn clients(all: &mut Vec<Sometimes>) {
    let kinds: [(&str, Is); 20] = [
        ("one request", |traffic| *traffic == Traffic::Once(Pacing::Prompt)),
        ("a head in two parts", |traffic| matches!(traffic, Traffic::Once(Pacing::HeadPause(_)))),
        ("a slow upload", |traffic| matches!(traffic, Traffic::Once(Pacing::SlowUpload(..)))),
        ("a slow reader over HTTP/2", |traffic| matches!(traffic, Traffic::Http2Slowly { .. })),
        ("a slow upload over HTTP/2", |traffic| matches!(traffic, Traffic::Http2Upload { .. })),
        ("streams that are reset unread", |traffic| matches!(traffic, Traffic::Http2Resets { .. })),
        ("half a frame of HTTP/2", |traffic| matches!(traffic, Traffic::Http2HalfFrame { .. })),
        ("a slow reader", |traffic| matches!(traffic, Traffic::Once(Pacing::SlowReader(..)))),
        ("a half-closed client", |traffic| *traffic == Traffic::Once(Pacing::HalfClosed)),
        ("keep-alive", |traffic| matches!(traffic, Traffic::KeepAlive { .. })),
        ("a connection per request", |traffic| matches!(traffic, Traffic::PerRequest { .. })),
        ("HTTP/2", |traffic| matches!(traffic, Traffic::Http2 { .. })),
        ("pipelined requests", |traffic| matches!(traffic, Traffic::Pipelined { .. })),
        ("a late first byte", |traffic| matches!(traffic, Traffic::Late { .. })),
        ("no byte at all", |traffic| *traffic == Traffic::ByteLess),
        ("a partial head", |traffic| *traffic == Traffic::HalfHead),
        ("a silent HTTP/2 peer", |traffic| *traffic == Traffic::SilentHttp2),
        ("a slow preface of HTTP/2", |traffic| matches!(traffic, Traffic::SlowHttp2 { .. })),
        ("an upgraded connection", |traffic| matches!(traffic, Traffic::Upgraded { .. })),
        ("a client that leaves", |traffic| matches!(traffic, Traffic::Leaves { .. })),
    ];
    for (kind, is) in kinds {
        all.push(Sometimes::new(format!("across the drain: {kind}"), move |coverage| {
            coverage.is_across(is)
        }));
    }
}

#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a method's path is not general enough over lifetimes"
)]
fn requests(all: &mut Vec<Sometimes>) {
    let mut outcome = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("request: {what}"), test));
    };
    outcome("finished", |coverage| coverage.tally().is_some_and(|tally| tally.finished > 0));
    outcome("timed out", |coverage| coverage.tally().is_some_and(|tally| tally.timed_out > 0));
    outcome("aborted before its head", |coverage| coverage.aborted("no"));
    outcome("aborted after its head", |coverage| coverage.aborted("yes"));
    outcome("gone", |coverage| coverage.tally().is_some_and(|tally| tally.gone > 0));
    outcome("panicked", |coverage| coverage.tally().is_some_and(|tally| tally.panicked > 0));
    outcome("cancelled, with a response", |coverage| {
        coverage.history.server("handler cancelled").next().is_some()
    });
    outcome("a 408", |coverage| {
        coverage.completed(408)
            || coverage.history.events("ended").any(coverage::is_answered_half_head)
    });
    outcome("a 500", |coverage| coverage.completed(500));
    outcome("a 503", |coverage| coverage.completed(503));
    outcome("retried", |coverage| coverage.clients_did("retries"));
    outcome("refused connect", |coverage| coverage.clients_did("connect failed"));
    outcome("a connect given up", |coverage| coverage.clients_did("gives up connecting"));
    outcome("an idle connection closed", |coverage| coverage.clients_did("closed idle"));
    outcome("an upload aborted in the drain", |coverage| {
        coverage.history.server("abort").any(|abort| abort.text("phase") == Some("draining"))
    });
    let mut link = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("connection: {what}"), test));
    };
    link("drained", |coverage| {
        coverage.report().is_some_and(|report| report.connections.drained > 0)
    });
    link("close_races", |coverage| {
        coverage.report().is_some_and(|report| report.connections.close_races > 0)
    });
    link("reset", |coverage| coverage.report().is_some_and(|report| report.connections.reset > 0));
    link("GOAWAY in the lame duck delay", |coverage| coverage.goaway_in(Phase::LameDuck));
    link("unannounced", |coverage| {
        coverage.report().is_some_and(|report| report.connections.unannounced > 0)
    });
    link("opened in the delay, and announced in it by GOAWAY", |coverage| {
        coverage.announced_late(|observed| coverage.has_goaway(observed))
    });
    link(
        "opened in the delay, kept for a request, and announced in it by `Connection: close`",
        |coverage| {
            coverage.announced_late(|observed| {
                observed.earlier > 0 && matches!(observed.head, Some((_, _, true)))
            })
        },
    );
    link("GOAWAY in the drain", |coverage| coverage.goaway_in(Phase::Draining));
    link("GOAWAY with streams open", |coverage| coverage.goaway_with_streams());
}

fn hooks(all: &mut Vec<Sometimes>) {
    for result in [HookResult::Done, HookResult::Failed, HookResult::Panicked] {
        all.push(Sometimes::new(format!("hook: a start {result:?}"), move |coverage| {
            coverage.started_with(&[result])
        }));
        all.push(Sometimes::new(format!("hook: a stop {result:?}"), move |coverage| {
            coverage.hook(|verdict| verdict == HookVerdict::Stopped(result))
        }));
    }
    for why in [GiveUp::Overran, GiveUp::Impatience] {
        all.push(Sometimes::new(format!("hook: a stop given up: {why:?}"), move |coverage| {
            coverage.hook(|verdict| verdict == HookVerdict::GivenUp(why))
        }));
    }
    all.push(Sometimes::new("hook: a start dropped", |coverage| {
        coverage.hook(|verdict| verdict == HookVerdict::StartDropped)
    }));
    all.push(Sometimes::new("hook: a dropped start finished late", |coverage| {
        coverage.history.events("hook ends").any(|record| {
            record.text("stage") == Some("start")
                && record.text("hook").is_some_and(|hook| coverage.history.was_dropped(hook))
        })
    }));
}

fn extras(all: &mut Vec<Sometimes>) {
    for how in ["done", "failed", "panicked", "dropped"] {
        all.push(Sometimes::new(format!("task: {how}"), move |coverage| coverage.task(how)));
    }
    for until in [Until::Stopping, Until::Draining, Until::Cancelled] {
        all.push(Sometimes::new(format!("task: notified of {}", until.name()), move |coverage| {
            coverage.task_notified(until)
        }));
    }
    let mut state =
        |what: &str, test: fn(&Coverage<'_>) -> bool| all.push(Sometimes::new(what, test));
    state("task: a failure stopped the host", |coverage| {
        coverage.report().is_some_and(|report| report.reason == Some(StopReason::TaskFailed))
    });
    state("task: a failure after the stop request", |coverage| {
        coverage.history.a_task_failed() == Some(true)
            && coverage.report().is_some_and(|report| report.reason != Some(StopReason::TaskFailed))
    });
    state("task: spawned by a handler, running in the drain", |coverage| {
        coverage.leftover_in_the_drain()
    });
    state("upgraded: closed by the app", |coverage| coverage.clients_did("farewell"));
    state("upgraded: cut", |coverage| {
        coverage.clients_did("upgraded")
            && !coverage.clients_did("farewell")
            && coverage.history.server("conversation ends").count() > 0
    });
    state("check: failed while serving", |coverage| {
        coverage.probed("/readiness", 503, Phase::Serving)
    });
    state("request: an event stream that ended with the drain", |coverage| {
        coverage.completed_target("/events")
    });
    state("request: a context that is watched only after its cancellation", |coverage| {
        let cancelling = coverage.history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
        coverage.history.server("handler begins").any(|begins| {
            let target = begins.text("target").unwrap_or_default();
            let after = target
                .strip_prefix("/ignores?watch=")
                .and_then(|query| query.split('&').next()?.parse().map(Duration::from_millis).ok());
            let mut cancelled = coverage.history.server("context cancelled");
            after.is_some_and(|after| begins.at + after > cancelling)
                && cancelled.any(|record| record.number("handler") == begins.number("handler"))
        })
    });
    state("request: its own deadline", |coverage| {
        coverage.history.requests.iter().any(|observed| {
            observed.target.contains("within=")
                && observed.head.is_some_and(|(_, status, _)| status == 503)
        })
    });
}

/// Faults around the host, at a time when they matter.
fn faults(all: &mut Vec<Sometimes>) {
    let mut fault = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("fault: {what}"), test));
    };
    fault("partial reads and writes, complete responses", |coverage| {
        coverage.has_fault(|fault| matches!(fault, Fault::PartialIo { .. }))
            && coverage.tally().is_some_and(|tally| tally.finished > 0)
    });
    fault("an accept fails while serving", |coverage| {
        coverage.accept_failed_in("descriptors", Phase::Serving)
    });
    fault("an accept fails in the lame duck delay", |coverage| {
        coverage.accept_failed_in("descriptors", Phase::LameDuck)
    });
    fault("an accept fails in the drain", |coverage| {
        coverage.accept_failed_in("descriptors", Phase::Draining)
    });
    fault("another connection is aborted before its accept", |coverage| {
        coverage.accept_failed_in("aborted", Phase::Serving)
    });
    fault("all connections reset, with requests in flight", |coverage| {
        coverage.has_fault(|fault| matches!(fault, Fault::ResetAll { .. }))
            && coverage.tally().is_some_and(|tally| tally.gone > 0)
    });
    fault("a reset that a write finds", |coverage| {
        coverage.history.server("a write found a reset").next().is_some()
    });
    fault("a reset by a client whose handler is running", |coverage| {
        let resets = |traffic: &Traffic| matches!(traffic, Traffic::Leaves { resets: true, .. });
        coverage.history.scenario.clients.iter().any(|client| resets(&client.traffic))
            && coverage.clients_did("leaves")
    });
    fault("discarded HTTP/2 responses", |coverage| {
        let leaves = |traffic: &Traffic| matches!(traffic, Traffic::Http2Leaves { .. });
        coverage.history.scenario.clients.iter().any(|client| leaves(&client.traffic))
            && coverage.clients_did("leaves")
            && coverage.tally().is_some_and(|tally| tally.gone > 0)
    });
    fault("work that outlives its response and panics", |coverage| {
        let left = |record: &&crate::trace::Record| {
            record.text("task").is_some_and(|task| task.starts_with("left"))
        };
        coverage
            .history
            .server("task ends")
            .filter(left)
            .any(|record| record.text("how") == Some("panicked"))
    });
    fault("a body that panics", |coverage| {
        coverage.history.server("abort").any(|abort| abort.text("path") == Some("/breaks"))
    });
    fault("a reader cut in the drain", |coverage| {
        coverage.history.server("abort").any(|abort| {
            abort.text("phase") == Some("draining") && abort.text("path") == Some("/bytes")
        })
    });
    fault("a partial head in the internal server's close", |coverage| {
        coverage.internal_close_waited()
    });
    fault("a request aborted in the instant of its deadline", |coverage| {
        coverage.history.scenario.request_timeout_ms.is_some_and(|ms| {
            coverage.history.server("handler begins").any(|record| {
                let due = record.at + coverage.history.world(Duration::from_millis(ms));
                let ends = |end: &&crate::trace::Record| {
                    end.number("handler") == record.number("handler") && end.at == due
                };
                coverage.history.server("handler ends").any(|end| ends(&end))
                    && coverage
                        .history
                        .server("log")
                        .any(|log| log.at == due && log.text("message") == Some("request aborted"))
            })
        })
    });
}

/// Longest distance from a phase edge that counts as being at the edge.
const NEAR: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::sometimes;
    use std::collections::BTreeSet;

    #[test]
    fn every_state_is_declared_once() {
        let names: BTreeSet<&str> = sometimes().iter().map(|state| state.what.as_str()).collect();
        assert_eq!(names.len(), sometimes().len());
    }
}
