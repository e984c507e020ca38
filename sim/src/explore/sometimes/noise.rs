//! States of clients that send things beside their requests, and go on after a GOAWAY.

use super::{Coverage, Sometimes};
use crate::{
    scenario::{Client, Traffic, client_name},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

pub(super) fn noise(all: &mut Vec<Sometimes>) {
    let mut state = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(format!("noise: {what}"), test));
    };
    state("empty lines on an idle connection that is closed for its time", |coverage| {
        coverage.history.scenario.limits.keep_alive.is_some()
            && coverage.noisy_while_serving("closed idle", |client| {
                matches!(client.traffic, Traffic::KeepAlive { .. })
            })
    });
    state("PINGs on an idle connection that gets a GOAWAY for its time", |coverage| {
        coverage.history.scenario.limits.keep_alive.is_some()
            && coverage.noisy_while_serving("goaway", |client| client.traffic.is_http2())
    });
    state("empty lines without a request, given up while serving", |coverage| {
        coverage.noisy_while_serving("ended", |client| client.traffic == Traffic::ByteLess)
    });
    state("PINGs without a request, given up while serving", |coverage| {
        coverage.noisy_while_serving("ended", |client| client.traffic == Traffic::SilentHttp2)
    });
    state("without a request, across the drain", |coverage| {
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        coverage.noisy("ended", |client, ended| {
            let is_silent = matches!(client.traffic, Traffic::ByteLess | Traffic::SilentHttp2);
            is_silent && ended.at > draining
        })
    });
    state("PINGs beside a response that nobody reads, which is cut", |coverage| {
        coverage.noisy("response lost", |client, lost| {
            client.traffic.is_http2() && lost.text("how") == Some("stream-reset")
        })
    });
    state("PINGs beside a body that stops", |coverage| {
        coverage.report().is_some_and(|report| report.connections.body_timeouts > 0)
            && coverage.noisy("head", |client, head| {
                matches!(client.traffic, Traffic::Http2Upload { .. })
                    && head.number("status") == Some(503)
            })
    });
    for (what, is_late) in [("never responds to its PING", false), ("responds late", true)] {
        let what = format!("goaway: a client goes on opening streams for a second, and {what}");
        all.push(Sometimes::new(what, move |coverage| {
            let is_it = |traffic: &Traffic| {
                matches!(traffic, Traffic::Http2GoesOn { pong_ms, .. }
                    if pong_ms.is_some() == is_late)
            };
            coverage.history.events("goaway").any(|goaway| {
                let client = client_of(coverage, goaway);
                let asks_on = || {
                    coverage.history.requests.iter().any(|observed| {
                        *goaway.actor == *client_name(observed.client)
                            && observed.observed > goaway.at + Duration::from_millis(400)
                            && goaway.number("connection") == Some(observed.connection)
                    })
                };
                client.is_some_and(|client| is_it(&client.traffic)) && asks_on()
            })
        }));
    }
}

fn client_of<'a>(coverage: &'a Coverage<'_>, record: &Record) -> Option<&'a Client> {
    let client = record.actor.strip_prefix("client-")?.parse::<usize>().ok()?;
    coverage.history.scenario.clients.get(client)
}

impl Coverage<'_> {
    /// Whether a client that sends things beside its requests has such a record.
    fn noisy(&self, event: &str, is: impl Fn(&Client, &Record) -> bool) -> bool {
        self.history.events(event).any(|record| {
            let client = client_of(self, record).filter(|client| client.noise_ms.is_some());
            client.is_some_and(|client| is(client, record))
        })
    }

    fn noisy_while_serving(&self, event: &str, is: impl Fn(&Client) -> bool) -> bool {
        let left = self.history.left_serving().unwrap_or(Duration::MAX);
        self.noisy(event, |client, record| is(client) && record.at < left)
    }
}
