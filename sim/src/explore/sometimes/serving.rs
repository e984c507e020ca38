//! States of a host that serves: timeouts of clients, and unusual requests.

use super::{Coverage, Sometimes};
use crate::{
    oracle::{ObservedRequest, RequestResult},
    scenario::{
        Client, HeadInPieces, OddRequest, RequestKind, SentOn, Stranger, Traffic, WrongLength,
        client_name,
    },
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

pub(super) fn serving(all: &mut Vec<Sometimes>) {
    timeouts(all);
    connections(all);
    odd_requests(all);
    heads(all);
    tls(all);
}

fn tls(all: &mut Vec<Sometimes>) {
    for clean in ["yes", "no"] {
        all.push(Sometimes::new(format!("tls: an end with clean={clean}"), move |coverage| {
            coverage.history.events("tls end").any(|record| record.text("clean") == Some(clean))
        }));
    }
    for (end, shut) in [("for its time", false), ("for its end", true)] {
        let what = format!("tls: a stream cut beside half a frame, {end}");
        all.push(Sometimes::new(what, move |coverage| {
            let is_it = |traffic: &Traffic| {
                matches!(traffic, Traffic::Http2HalfFrame { half_closes, .. }
                    if *half_closes == shut)
            };
            coverage.history.scenario.tls
                && coverage.history.requests.iter().any(|observed| {
                    let client = coverage.history.client(observed);
                    let cut = matches!(&observed.end, Some((_, RequestResult::Failed(how)))
                        if how == "body-cut");
                    cut && client.is_some_and(|client| is_it(&client.traffic))
                })
        }));
    }
    all.push(Sometimes::new("tls: a handshake that the drain completes", |coverage| {
        let Some(draining) = coverage.history.began(Phase::Draining) else { return false };
        coverage.history.scenario.tls
            && coverage
                .history
                .events("connected")
                .any(|record| record.actor.starts_with("client-") && record.at > draining)
    }));
    all.push(Sometimes::new("tls: a handshake given up while serving", |coverage| {
        let left = coverage.history.left_serving().unwrap_or(Duration::MAX);
        coverage.gave_up_a_handshake(|at| at < left)
    }));
    all.push(Sometimes::new("tls: a handshake given up in the drain", |coverage| {
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        let cleaning_up = coverage.history.began(Phase::CleaningUp).unwrap_or(Duration::MAX);
        coverage.gave_up_a_handshake(|at| at > draining && at < cleaning_up)
    }));
}

fn timeouts(all: &mut Vec<Sometimes>) {
    let mut timeout = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("timeout: {what}"), test));
    };
    timeout("a reader of nothing cut while serving", |coverage| {
        coverage.stalled(Phase::Serving, "reset", |reads| reads == 0)
    });
    timeout("a reader that stopped half-way cut while serving", |coverage| {
        coverage.stalled(Phase::Serving, "reset", |reads| reads > 0)
    });
    timeout("a reader cut in the lame duck delay", |coverage| {
        coverage.stalled(Phase::LameDuck, "reset", |_| true)
    });
    timeout("a reader cut in the drain", |coverage| {
        coverage.stalled(Phase::Draining, "reset", |_| true)
    });
    timeout("a reader that went on in time", |coverage| {
        coverage.stalled(Phase::Serving, "in time", |_| true)
    });
    timeout("a stream without a window reset while serving", |coverage| {
        coverage.history.events("response lost").any(|record| {
            record.text("how") == Some("stream-reset")
                && coverage.history.left_serving().is_none_or(|left| record.at < left)
        })
    });
    timeout("one stream of several reset, which its client left unread", |coverage| {
        coverage.history.requests.iter().any(|observed| {
            let client = coverage.history.client(observed);
            let beside = |client: &Client| {
                matches!(client.traffic, Traffic::Http2Stalls { beside_ms: Some(_), .. })
            };
            client.is_some_and(beside)
                && coverage.history.events("response lost").any(|record| {
                    *record.actor == *client_name(observed.client)
                        && record.text("how") == Some("stream-reset")
                })
        })
    });
    timeout("a body that stopped, while serving", |coverage| {
        let left = coverage.history.left_serving().unwrap_or(Duration::MAX);
        coverage.report().is_some_and(|report| report.connections.body_timeouts > 0)
            && coverage.answered(|observed| {
                observed.head.is_some_and(|(at, status, _)| status == 503 && at < left)
            })
    });
    timeout("of a line a second, with others left out", |coverage| {
        coverage.history.server("log").any(|line| {
            line.text("message") == Some("client timed out")
                && line.number("suppressed").is_some_and(|left_out| left_out > 0)
        })
    });
    timeout("a client whose half-closed connection is reset", |coverage| {
        let leaves = |traffic: &Traffic| {
            matches!(traffic, Traffic::Leaves { resets: true, half_closed: true, .. })
        };
        coverage.history.scenario.clients.iter().any(|client| leaves(&client.traffic))
            && coverage.clients_did("leaves")
            && coverage.tally().is_some_and(|tally| tally.gone > 0)
    });
}

fn connections(all: &mut Vec<Sometimes>) {
    let mut limit = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("connections: {what}"), test));
    };
    limit("more than the limit, while others make room", |coverage| {
        coverage.history.server("accepted above the limit").next().is_some()
    });
    limit("an accept failed at the limit", |coverage| {
        coverage.history.scenario.limits.connections_max.is_some()
            && coverage.history.server("accept failed").next().is_some()
    });
    limit("descriptors ran out twice", |coverage| {
        coverage.history.scenario.workers == 1
            && coverage.logged_twice("cannot accept connections; retrying every 20 ms")
    });
    limit("a worker was blocked twice", |coverage| coverage.logged_twice("a worker is blocked"));
    limit("a silent one made room while serving", |coverage| {
        coverage.made_room("ended", |traffic| *traffic == Traffic::ByteLess)
    });
    for what in [SentOn::Body, SentOn::Letters, SentOn::EmptyLines] {
        all.push(Sometimes::new(
            format!("connections: a client goes on sending at the end: {what:?}"),
            move |coverage| {
                let sends = |client: &Client| {
                    matches!(client.traffic, Traffic::SendsOn(how) if how.what == what)
                };
                coverage.history.scenario.clients.iter().any(sends)
                    && coverage.clients_did("sends on")
            },
        ));
    }
    let mut limit = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("connections: {what}"), test));
    };
    limit("an idle one made room while serving", |coverage| {
        coverage.made_room("closed idle", |traffic| matches!(traffic, Traffic::KeepAlive { .. }))
    });
    limit("a new one waited for a busy one", |coverage| {
        coverage.history.scenario.limits.connections_max.is_some()
            && coverage.history.requests.iter().any(|observed| {
                let asked = observed.observed;
                let other = |other: &ObservedRequest| {
                    other.client != observed.client
                        && other.observed <= asked
                        && matches!(&other.end, Some((at, _)) if *at > asked)
                };
                let waited = Duration::from_millis(90);
                coverage.history.request_kind(observed) == Some(&RequestKind::Slow(100))
                    && observed
                        .head
                        .is_some_and(|(at, status, _)| status == 200 && at > asked + waited * 2)
                    && coverage.history.requests.iter().any(other)
            })
    });
    limit("an idle one closed while serving, for its time", |coverage| {
        coverage.history.scenario.limits.keep_alive.is_some()
            && coverage.closed_while_serving("closed idle")
    });
    limit("a request crossed the close of an idle one before the drain", |coverage| {
        coverage.history.requests.iter().any(|observed| {
            coverage.history.may_cross_an_idle_close(observed)
                && coverage.failed_before_the_drain(observed)
        })
    });
    for stranger in [Stranger::ByteLess, Stranger::HalfHead, Stranger::Windowless] {
        all.push(Sometimes::new(
            format!("probe: among strangers, {stranger:?}"),
            move |coverage| {
                let is_it = |traffic: &Traffic| {
                    matches!(traffic, Traffic::InternalStrangers { stranger: of, count: 128.. }
                    if *of == stranger)
                };
                let mut clients = coverage.history.scenario.clients.iter().enumerate();
                let Some((n, _)) = clients.find(|(_, client)| is_it(&client.traffic)) else {
                    return false;
                };
                let mut connected = coverage
                    .history
                    .events("connected")
                    .filter(|record| *record.actor == *client_name(n));
                let Some(full) = connected.nth(127).map(|record| record.at) else { return false };
                coverage
                    .history
                    .events("probe")
                    .any(|record| record.number("status").is_some() && record.at > full)
            },
        ));
    }
    let mut limit = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("connections: {what}"), test));
    };
    limit("all upgraded, at the limit", |coverage| {
        let most = coverage.history.scenario.limits.connections_max;
        let upgraded = coverage.history.server("conversation begins").count();
        most.is_some_and(|most| upgraded >= most)
    });
    limit("a GOAWAY while serving, for its time", |coverage| {
        coverage.history.scenario.limits.keep_alive.is_some()
            && coverage.closed_while_serving("goaway")
    });
}

fn heads(all: &mut Vec<Sometimes>) {
    let mut head = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("head: {what}"), test));
    };
    head("in pieces after a request, and served", |coverage| {
        coverage.in_pieces(|how, observed| {
            how.earlier > 0 && observed.head.is_some_and(|(_, status, _)| status == 200)
        })
    });
    head("a preface of HTTP/2 in pieces, given up while serving", |coverage| {
        let left = coverage.history.left_serving().unwrap_or(Duration::MAX);
        let clients = coverage.history.scenario.clients.iter().enumerate();
        clients.filter(|(_, client)| matches!(client.traffic, Traffic::SlowHttp2 { .. })).any(
            |(n, _)| {
                coverage
                    .history
                    .events("ended")
                    .any(|record| record.at < left && *record.actor == *client_name(n))
            },
        )
    });
    head("in pieces, and refused while serving", |coverage| {
        let left = coverage.history.left_serving().unwrap_or(Duration::MAX);
        coverage.in_pieces(|how, observed| {
            let refused = matches!(observed.head, Some((at, 408, _)) if at < left);
            how.earlier > 0 && refused
        })
    });
    head("in pieces, the first in one write with a request", |coverage| {
        coverage.in_pieces(|how, observed| {
            how.earlier > 0 && how.idle_ms.is_none() && observed.head.is_some()
        })
    });
    head("in pieces, whole in the drain", |coverage| {
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        coverage.in_pieces(|_, observed| {
            let served = matches!(observed.head, Some((_, 200, _)));
            served && observed.observed < draining && observed.sent > Some(draining)
        })
    });
    head("in parts of a record, whole in the drain", |coverage| {
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        let is_tls = coverage.history.scenario.tls;
        coverage.in_pieces(|how, observed| {
            let served = matches!(observed.head, Some((_, 200, _)));
            let crosses = observed.observed < draining && observed.sent > Some(draining);
            is_tls && how.in_one_record && how.idle_ms.is_some() && served && crosses
        })
    });
    head("a 431 for its fields, on HTTP/1", |coverage| {
        let limits = &coverage.history.scenario.limits;
        limits.headers_max.is_some() && coverage.refused_head(false)
    });
    head("a 431 for its fields, on HTTP/2", |coverage| {
        let limits = &coverage.history.scenario.limits;
        limits.headers_max.is_some() && coverage.refused_head(true)
    });
    head("a 431 for its bytes", |coverage| {
        let limits = &coverage.history.scenario.limits;
        limits.header_bytes_max.is_some()
            && (coverage.refused_head(false) || coverage.refused_head(true))
    });
}

fn odd_requests(all: &mut Vec<Sometimes>) {
    all.push(Sometimes::new(
        "a body that fails after a long response of its pipeline",
        |coverage| {
            let requests = &coverage.history.requests;
            requests.iter().any(|long| {
                let is_next = |next: &&ObservedRequest| {
                    (next.client, next.connection) == (long.client, long.connection)
                        && next.earlier == long.earlier + 1
                };
                matches!(long.end, Some((_, RequestResult::Completed(200, 60_000..))))
                    && coverage.history.client(long).is_some_and(|client| {
                        matches!(client.traffic, Traffic::Pipelined { .. })
                            && client.has_failing_body()
                    })
                    && requests.iter().find(is_next).is_some_and(|next| next.failure().is_some())
            })
        },
    ));
    let lengths = OddRequest::LENGTHS.into_iter().chain([OddRequest::EmptyLine(10)]);
    let lengths = lengths.chain(OddRequest::HEADS);
    for odd in OddRequest::ALL.into_iter().chain(lengths) {
        all.push(Sometimes::new(format!("odd request: {}", odd.name()), move |coverage| {
            coverage.answered(|observed| {
                let kind = coverage.history.request_kind(observed);
                let is_it =
                    matches!(kind, Some(RequestKind::Odd(other)) if other.name() == odd.name());
                is_it && observed.head.is_some_and(|(_, status, _)| status == odd.response().0)
            })
        }));
    }
    for length in WrongLength::ALL {
        all.push(Sometimes::new(format!("wrong length: {length:?}"), move |coverage| {
            coverage.history.requests.iter().any(|observed| {
                let is_it =
                    coverage.history.request_kind(observed) == Some(&RequestKind::Mismatch(length));
                let cut = matches!(observed.end, Some((_, RequestResult::Failed(_))));
                let status = observed.head.map(|(_, status, _)| status);
                is_it
                    && if length.is_late() { cut && status.is_some() } else { status == Some(500) }
            })
        }));
    }
}

impl Coverage<'_> {
    fn closed_while_serving(&self, event: &str) -> bool {
        let left = self.history.left_serving().unwrap_or(Duration::MAX);
        self.history.events(event).any(|record| record.at < left)
    }

    /// Whether a request whose head came in pieces is one that `is` accepts.
    fn in_pieces(&self, is: impl Fn(HeadInPieces, &ObservedRequest) -> bool) -> bool {
        self.history.requests.iter().any(|observed| {
            let traffic = self.history.client(observed).map(|client| client.traffic);
            matches!(traffic, Some(Traffic::InPieces(how))
                if observed.earlier >= how.earlier && is(how, observed))
        })
    }

    fn refused_head(&self, is_http2: bool) -> bool {
        self.history.requests.iter().any(|observed| {
            self.history.is_http2(observed) == is_http2
                && matches!(observed.head, Some((_, 431, _)))
        })
    }

    fn failed_before_the_drain(&self, observed: &ObservedRequest) -> bool {
        let left = self.history.left_lame_duck().unwrap_or(Duration::MAX);
        matches!(&observed.end, Some((at, RequestResult::Failed(_))) if *at < left)
    }

    /// Whether a client of this kind lost its connection at the connection limit.
    fn made_room(&self, event: &str, is: fn(&Traffic) -> bool) -> bool {
        let left = self.history.left_serving().unwrap_or(Duration::MAX);
        self.report().is_some_and(|report| report.connections.evicted > 0)
            && self.history.scenario.clients.iter().enumerate().any(|(n, client)| {
                is(&client.traffic)
                    && self
                        .history
                        .events(event)
                        .any(|record| record.at < left && *record.actor == *client_name(n))
            })
    }

    /// Whether a request with a complete response is one that `is` accepts.
    fn answered(&self, is: impl Fn(&ObservedRequest) -> bool) -> bool {
        let whole = |observed: &&ObservedRequest| {
            matches!(observed.end, Some((_, RequestResult::Completed(..))))
        };
        self.history.requests.iter().filter(whole).any(is)
    }

    /// Whether the log has this message more than once.
    fn logged_twice(&self, message: &str) -> bool {
        let lines = self.history.server("log");
        lines.filter(|line| line.text("message") == Some(message)).nth(1).is_some()
    }

    /// Whether the stall of a reader ended so in this phase.
    fn stalled(&self, phase: Phase, how: &str, reads: fn(u64) -> bool) -> bool {
        let Some(from) = self.history.began(phase) else { return false };
        let next = self.history.phases.iter().find(|(entered, _, _)| *entered > phase);
        let to = next.map_or(Duration::MAX, |(_, _, at)| *at);
        self.history.events("stall ends").any(|record| {
            record.text("how") == Some(how)
                && record.at > from
                && record.at < to
                && self.history.records.iter().any(|stalls| {
                    stalls.event == "stalls"
                        && stalls.actor == record.actor
                        && stalls.number("bytes").is_some_and(reads)
                })
        })
    }
}
