//! States of gRPC calls and of long streams.

use super::Sometimes;
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Adds a state for each way in which a call ends: its status, and whether it was in the head.
pub(super) fn calls(all: &mut Vec<Sometimes>) {
    for (what, status, place) in [
        ("that succeeds", 0, "trailers"),
        ("whose deadline passes before its head", 4, "head"),
        ("whose timeout passes after its head", 4, "trailers"),
        ("that is cut before its head", 14, "head"),
        ("that is cut after its head", 14, "trailers"),
    ] {
        all.push(Sometimes::new(format!("surface: a gRPC call {what}"), move |coverage| {
            coverage.history.events("call status").any(|record| {
                record.number("status") == Some(status) && record.text("place") == Some(place)
            })
        }));
    }
    for (what, end) in [("the drain", "&end=drain"), ("its moment", "&end=spread")] {
        all.push(Sometimes::new(
            format!("surface: a gRPC stream that {what} ends"),
            move |coverage| {
                let cancelling = coverage.history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
                coverage.history.requests.iter().any(|observed| {
                    let ended = observed.end.as_ref().is_some_and(|(at, _)| *at < cancelling);
                    ended
                        && observed.target.contains(end)
                        && observed.call.is_some_and(|(status, _)| status == 14)
                })
            },
        ));
    }
    for (what, heeds) in [("that is told its end", "yes"), ("that is cut", "no")] {
        let what = format!("surface: an upgraded connection with the budget of streams, {what}");
        all.push(Sometimes::new(what, move |coverage| {
            coverage
                .history
                .server("conversation ends")
                .any(|ends| ends.text("long") == Some("yes") && ends.text("heeds") == Some(heeds))
        }));
    }
    all.push(Sometimes::new(
        "surface: long streams that outlast the drain of requests",
        |coverage| {
            let history = coverage.history;
            history.requests_cancelled().is_some()
                && history.outcome.report.as_ref().is_some_and(|report| report.streams_ended > 1)
        },
    ));
}
