//! States of connections that begin with a PROXY header, or should.

use super::{Coverage, Sometimes};
use crate::{
    oracle::ObservedRequest,
    scenario::{Client, HeaderFault, HeaderKind, Traffic},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

pub(super) fn headers(all: &mut Vec<Sometimes>) {
    for kind in HeaderKind::ALL {
        for tls in [false, true] {
            let what = format!("proxy: a response after a header, {kind:?}, tls={tls}");
            all.push(Sometimes::new(what, move |coverage| {
                coverage.history.scenario.tls == tls
                    && served(coverage, |client| {
                        client.header.is_some_and(|header| header.kind == kind)
                    })
            }));
        }
    }
    for fault in HeaderFault::ALL {
        let what = format!("proxy: a connection that is refused, {fault:?}");
        all.push(Sometimes::new(what, move |coverage| {
            clients_ended(coverage, |_, _| true)
                .any(|client| client.traffic == Traffic::BadHeader(fault))
        }));
    }
    all.push(Sometimes::new(
        "proxy: half a header from before the stop ends in the drain",
        |coverage| {
            let (stop, draining) =
                (coverage.history.left_serving(), coverage.history.began(Phase::Draining));
            let (Some(stop), Some(draining)) = (stop, draining) else { return false };
            let crosses = move |connected: Duration, ended: Duration| {
                connected < stop && ended > draining + Duration::from_millis(500)
            };
            clients_ended(coverage, crosses)
                .any(|client| client.traffic == Traffic::BadHeader(HeaderFault::Half))
        },
    ));
    all.push(Sometimes::new("proxy: half a header ends while serving", |coverage| {
        let stop = coverage.history.left_serving().unwrap_or(Duration::MAX);
        clients_ended(coverage, move |_, ended| ended < stop)
            .any(|client| client.traffic == Traffic::BadHeader(HeaderFault::Half))
    }));
    for is_served in [true, false] {
        let what = format!("proxy: a header that the drain interrupts, served={is_served}");
        all.push(Sometimes::new(what, move |coverage| {
            let Some(draining) = coverage.history.began(Phase::Draining) else { return false };
            let crosses = |client: &Client| client.has_slow_header();
            let begun = coverage.history.events("header begins");
            begun.filter(|begins| begins.at < draining).any(|begins| {
                let Some((n, client)) = client_of(coverage, begins) else { return false };
                let sent = of_client(coverage, n, "header sent");
                let late = sent.is_none_or(|sent| sent.at > draining);
                crosses(client) && late && is_served == served_number(coverage, n)
            })
        }));
    }
}

/// Whether a client of such a kind got a response.
fn served(coverage: &Coverage<'_>, is_it: impl Fn(&Client) -> bool) -> bool {
    coverage.history.requests.iter().any(|observed: &ObservedRequest| {
        observed.head.is_some() && coverage.history.client(observed).is_some_and(&is_it)
    })
}

fn served_number(coverage: &Coverage<'_>, n: usize) -> bool {
    let is_its = |observed: &ObservedRequest| observed.client == n && observed.head.is_some();
    coverage.history.requests.iter().any(is_its)
}

fn client_of<'a>(coverage: &'a Coverage<'_>, record: &Record) -> Option<(usize, &'a Client)> {
    let n = record.actor.strip_prefix("client-")?.parse::<usize>().ok()?;
    Some((n, coverage.history.scenario.clients.get(n)?))
}

fn of_client<'a>(coverage: &'a Coverage<'_>, n: usize, event: &str) -> Option<&'a Record> {
    coverage.history.of_client(n, event).next()
}

/// Returns the clients whose connection the host ended at such times of its begin and its end.
fn clients_ended<'a>(
    coverage: &'a Coverage<'_>,
    when: impl Fn(Duration, Duration) -> bool + 'a,
) -> impl Iterator<Item = &'a Client> {
    let ended = coverage.history.events("ended");
    ended.filter(|ended| ended.text("how") != Some("timed-out")).filter_map(move |ended| {
        let (n, client) = client_of(coverage, ended)?;
        let connected = of_client(coverage, n, "connected")?;
        when(connected.at, ended.at).then_some(client)
    })
}
