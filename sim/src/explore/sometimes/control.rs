//! States of what concerns the process and not its requests.

use super::{Coverage, Sometimes};
use lameduck::lifecycle::Phase;
use std::time::Duration;

pub(super) fn control(all: &mut Vec<Sometimes>) {
    let mut state = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(what, test));
    };
    state("reload: after one that failed", |coverage| {
        let mut records = coverage.history.records.iter();
        let failed = |said: &str| said.starts_with("reload failed");
        records.any(|record| record.text("message").is_some_and(failed))
            && records.any(|record| record.event == "reload begins")
    });
    state("reload: requested again while it runs, and followed by one more", |coverage| {
        let takes = coverage.history.scenario.reloads.as_ref().map(|reloads| reloads.takes_ms);
        let takes = Duration::from_millis(takes.unwrap_or_default());
        let begun = || coverage.history.server("reload begins").map(|record| record.at);
        !takes.is_zero()
            && begun().zip(begun().skip(1)).any(|(first, second)| second == first + takes)
    });
    state("reload: requested in the delay, and none begins", |coverage| {
        let left = coverage.history.left_serving().unwrap_or(Duration::MAX);
        let draining = coverage.history.began(Phase::Draining).unwrap_or(Duration::MAX);
        let mut requested = coverage.history.server("reload requested");
        requested.any(|record| left < record.at && record.at < draining)
    });
    state("probe: liveness 503, since a worker is blocked", |coverage| {
        coverage.probed("/liveness", 503, Phase::Serving)
    });
    state("probe: serving 503 in the delay, since a worker is blocked", |coverage| {
        let Some(left) = coverage.history.left_serving() else { return false };
        let draining = coverage.history.left_lame_duck().unwrap_or(Duration::MAX);
        let mut logged = coverage.history.server("log");
        coverage.probed("/serving", 503, Phase::LameDuck)
            && logged.any(|record| {
                record.text("message") == Some("a worker is blocked")
                    && left < record.at
                    && record.at < draining
            })
    });
    state("log: a wait of seven seconds", |coverage| {
        let lines = coverage.history.server("log");
        lines.filter(|record| record.text("message") == Some("still waiting")).count() >= 3
    });
    state("page: a hook runs", |coverage| {
        coverage.history.events("status page").any(|record| record.text("hook").is_some())
    });
    state("page: the exit is due", |coverage| {
        let mut pages = coverage.history.events("status page");
        pages.any(|page| page.number("must_exit_within_ms").is_some())
    });
    for (what, part) in [
        ("a check in the drain", r#"lameduck_check_passing{check="check-0"} 1"#),
        ("a request without a head in the drain", r#"lameduck_waiting_for{kind="request"}"#),
        ("a response in progress in the drain", r#"lameduck_waiting_for{kind="stream"}"#),
        ("tracked work in the drain", r#"lameduck_waiting_for{kind="work"}"#),
        ("a background task in the drain", "lameduck_background_task_running"),
        ("a connection of HTTP/2 in the drain", r#"lameduck_connections{state="http2"}"#),
    ] {
        all.push(Sometimes::new(format!("metrics: {what}"), move |coverage| {
            let draining = r#"lameduck_phase{phase="draining"} 1"#;
            let mut pages = coverage.history.events("metrics page");
            pages.any(|page| {
                let gauges = page.text("gauges").unwrap_or_default();
                gauges.contains(draining) && gauges.contains(part)
            })
        }));
    }
    let mut state = |what: &str, test: fn(&Coverage<'_>) -> bool| {
        all.push(Sometimes::new(what, test));
    };
    state("page: an upgraded connection", |coverage| {
        coverage.history.events("status page").any(|page| page.number("upgraded") > Some(0))
    });
}
