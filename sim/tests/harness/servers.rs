//! The same service on three servers: what they lose in a deploy. The example prints more of it.

#[path = "../../examples/servers/table.rs"]
mod table;

use lameduck_sim::{Deploy, explore_server, harness::deploy::Systemd};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// The page with the table of 200 deploys.
const PAGE: &str = include_str!("../../../docs/should-i-worry.md");

const SEEDS: std::ops::Range<u64> = 0..3;

#[test]
fn lameduck_loses_nothing_where_others_do() {
    for (platform, deploy) in table::platforms() {
        for (server, losses) in table::rows(deploy, SEEDS) {
            let line = table::line(platform, server, &losses);
            assert!(losses.requests + losses.requests_with_retries > 500, "{line}");
            assert_eq!((losses.plays, losses.unfinished), (3, 0), "{line}");
            let row = format!("| {platform} | {server} | ");
            let printed = PAGE.lines().find_map(|line| line.strip_prefix(&row));
            let printed = printed.unwrap_or_else(|| panic!("no row {row} in the page"));
            assert_eq!(printed == "0 of 200 | 0.0 | 0 | 0 |", server == "lameduck", "{printed}");
            if server == "lameduck" {
                assert_eq!((losses.lost, losses.lost_despite_retries), (0, 0), "{line}: {losses}");
            } else {
                assert!(losses.plays_with_loss > 0, "{line}: {losses}");
            }
        }
        assert!(PAGE.contains(table::HEAD), "the page has the head of the table");
    }
}

#[test]
fn a_server_that_ignores_the_stop_is_killed_after_the_grace_period() {
    let router = || axum::Router::new().route("/", axum::routing::get(|| async { "tea" }));
    let systemd = Systemd { grace_period: Duration::from_secs(3), ..Systemd::default() };
    let losses = explore_server(move |listener, _| async move {
        drop(axum::serve(listener, router()).await);
    })
    .get("/")
    .deploy(Deploy::rolling(1).on(systemd))
    .plays(0..3)
    .run();
    assert_eq!((losses.killed, losses.unfinished), (3, 0), "{losses}");
    // While nothing listens, every server loses what is not sent again.
    assert!(losses.causes.contains_key("refused"), "{losses}");
}

fn said(run: &dyn Fn()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it proves nothing");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn deploys_that_would_prove_nothing_fail() {
    let serve = || explore_server(|_, stop| stop).get("/").plays(0..1).deploy(Deploy::rolling(1));
    assert!(said(&|| drop(serve().run())).starts_with("GET / never succeeded"));
    assert!(said(&|| drop(serve().plays(3..3).run())).contains("nothing to run"));
}

// A server that bound a real socket panicked in each play, and the message had only that its
// requests never succeeded.
#[test]
fn a_panic_of_a_server_is_reported_with_its_place_and_explained() {
    let said = said(&|| {
        let bound = explore_server(|_, stop| async {
            drop(tokio::net::TcpListener::bind("127.0.0.1:0").await);
            stop.await;
        });
        drop(bound.get("/").plays(0..1).deploy(Deploy::rolling(1)).run());
    });
    assert!(said.starts_with("GET / never succeeded"), "{said}");
    assert!(
        said.contains("; the server panicked at ") && said.contains("no real sockets"),
        "{said}"
    );
}
