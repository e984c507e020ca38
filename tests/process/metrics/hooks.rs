//! P11: the page shows which stage of which hook ran, how it ended and how long it took, and above
//! all the one that runs.

use super::{
    page::{CLASSIC, OPENMETRICS, Page},
    tools::{openmetrics_parser, promtool},
};
use crate::support::{App, builder, pause, until, until_holds};
use axum::Router;
use lameduck::{BackgroundTask, Hook, ReadinessCheck};
use std::{io, sync::Arc};
use tokio::sync::Notify;

type Done = Result<(), io::Error>;

fn row(hook: &str, stage: &str, outcome: &str) -> String {
    format!("hook_duration_seconds{{hook=\"{hook}\",stage=\"{stage}\",outcome=\"{outcome}\"}}")
}

/// A stop hook that waits, and what releases it.
fn waiting(name: &str) -> (Hook, Arc<Notify>) {
    let released = Arc::new(Notify::new());
    let waits = released.clone();
    let hook = Hook::on_stop(name, move || async move {
        waits.notified().await;
        Done::Ok(())
    });
    (hook, released)
}

#[test]
fn a_slow_stop_hook_is_visible_while_it_runs() {
    let (slow, released) = waiting("queue");
    let warm = Hook::on_start("cache", || async {
        pause(30).await;
        Done::Ok(())
    });
    let failing = Hook::on_stop("bus", || async { Done::Err(io::Error::other("gone")) });
    let app = App::start(builder().hook(warm).hook(slow).hook(failing).serve(Router::new()));
    let page = Page::scrape(app.internal, CLASSIC);
    let took = page.of_host(&row("cache", "start", "done"));
    assert!((0.03..5.0).contains(&took), "{took}");
    assert_eq!(page.like("lameduck_hook_duration_seconds").len(), 3, "three starts, no stop");
    app.stop();
    app.wait_for_phase("cleaning_up");
    until_holds("the hook is at it, and its time goes up", || {
        let page = Page::scrape(app.internal, CLASSIC);
        page.try_sample(&format!("lameduck_{}", row("queue", "stop", "running")))
            .is_some_and(|seconds| seconds > 0.02)
    });
    assert!(Page::scrape(app.internal, CLASSIC).of_host(&row("bus", "stop", "failed")) < 5.0);
    let status = app.status();
    assert_eq!(
        (&status["hook"]["name"], &status["hook"]["stage"]),
        (&"queue".into(), &"stop".into())
    );
    released.notify_one();
    let report = app.report();
    let queue =
        report.hooks.iter().rfind(|hook| hook.name == "queue").expect("its stop stage is reported");
    assert!(queue.took.as_millis() >= 20, "the report has what the page had: {queue:?}");
}

// Stop hooks run in the reverse order, and were numbered in the order in which they ended: the stop
// of the second pair had the name of the first.
#[test]
fn both_stages_of_a_pair_have_its_number() {
    let (first, released) = waiting("pool");
    let second = Hook::on_stop("pool", || async { Done::Ok(()) });
    let app = App::start(builder().hook(first).hook(second).serve(Router::new()));
    app.stop();
    app.wait_for_phase("cleaning_up");
    let page = until("the first pair's stop", || {
        let page = Page::scrape(app.internal, CLASSIC);
        page.try_sample(&format!("lameduck_{}", row("pool", "stop", "running"))).map(|_| page)
    });
    assert!(page.of_host(&row("pool#2", "stop", "done")) < 5.0);
    released.notify_one();
    assert_eq!(app.report().code(), 0);
}

#[test]
fn names_may_contain_anything_and_two_may_be_the_same() {
    let hook = || Hook::on_stop("data \"base\"\\\n", || async { Done::Ok(()) });
    let check = || ReadinessCheck::new("a b,c}=\"", || async { Done::Ok(()) });
    let host = builder()
        .hook(hook())
        .hook(hook())
        .readiness_check(check())
        .readiness_check(check())
        .serve(Router::new());
    let app = App::start(host);
    let escaped = r#"data \"base\"\\\n"#;
    let page = Page::scrape(app.internal, CLASSIC);
    assert!(page.of_host(&row(escaped, "start", "done")) < 5.0);
    assert!(page.of_host(&row(&format!("{escaped}#2"), "start", "done")) < 5.0);
    assert_eq!(page.like("lameduck_check_passing").len(), 2);
    promtool(&["check", "metrics"], &page.text);
    openmetrics_parser(&Page::scrape(app.internal, OPENMETRICS).text);
    let _ = app.end();
}

/// When the first of two tasks with one name ended, the second took over its row. An alert for the
/// second was never resolved, and the age of the first went down.
#[test]
fn a_task_keeps_its_row_when_one_of_the_same_name_ends() {
    let released = Arc::new(Notify::new());
    let waits = released.clone();
    let first = BackgroundTask::new("consumer", move |_| async move {
        waits.notified().await;
        Done::Ok(())
    });
    let second = BackgroundTask::new("consumer", |context| async move {
        context.stopping().await;
        Done::Ok(())
    });
    let host = builder().background_task(first).background_task(second).serve(Router::new());
    let app = App::start(host);
    let rows = || {
        let page = Page::scrape(app.internal, CLASSIC);
        ["consumer", "consumer#2"].map(|name| {
            let row = format!("lameduck_background_task_running_seconds{{task=\"{name}\"}}");
            page.try_sample(&row).is_some()
        })
    };
    until_holds("both rows", || rows() == [true, true]);
    released.notify_one();
    until_holds("the first task's end", || rows() != [true, true]);
    assert_eq!(rows(), [false, true]);
    assert_eq!(app.end().code(), 0);
}
