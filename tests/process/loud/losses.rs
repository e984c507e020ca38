//! P13, P14: a service without a log names what its shutdown has lost.

use super::{DEAD_DATABASE, ROLE, dead_database, exit, run_victim};
use crate::support::builder;
use axum::{Router, routing::get};
use lameduck::{BackgroundTask, BoundAddresses, Hook, Host, HttpService, RequestContext};
use std::{io, sync::Arc};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, oneshot},
};

/// A host that stops while a request waits for ever. Its tracked work does, too.
fn cuts() -> Host<impl HttpService> {
    let begun = Arc::new(Notify::new());
    let handler_begun = begun.clone();
    let stuck = move |axum::Extension(context): axum::Extension<RequestContext>| {
        context.spawn(std::future::pending());
        handler_begun.notify_one();
        std::future::pending::<&'static str>()
    };
    let (address, bound) = oneshot::channel();
    let tell = move |bound: &BoundAddresses| drop(address.send(bound.main[0].clone()));
    let builder = builder().on_bound(tell);
    let stop = builder.shutdown_handle();
    let client = |_| async move {
        let address = bound.await.map_err(io::Error::other)?;
        let mut client = TcpStream::connect(address.to_string()).await?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await?;
        begun.notified().await;
        stop.stop();
        // The client stays until the exit.
        std::mem::forget(client);
        Ok::<_, io::Error>(())
    };
    builder
        .background_task(BackgroundTask::new("client", client))
        .serve(Router::new().route("/", get(stuck)))
}

/// A host that stops at once, and whose stop hook fails.
fn fails_to_close() -> Host<impl HttpService> {
    let builder = builder();
    let stop = builder.shutdown_handle();
    let task = move |_| async move {
        stop.stop();
        Ok::<(), io::Error>(())
    };
    builder
        .background_task(BackgroundTask::new("stopper", task))
        .hook(Hook::on_stop("pool", || async { dead_database() }))
        .serve(Router::new())
}

fn run_here<S: HttpService>(host: Host<S>) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    exit(runtime.expect("a runtime").block_on(host.run()).code())
}

/// The process under test. Does nothing without a role; with one it does not return.
#[test]
fn victim() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if role.contains("log") {
        tracing_subscriber::fmt().json().with_writer(io::stderr).init();
    }
    match &*role {
        "run cuts" | "run cuts, log" => lameduck::run(|| Ok(cuts())),
        "Host::run cuts" | "Host::run cuts, log" => run_here(cuts()),
        "run fails to close" | "run fails to close, log" => lameduck::run(|| Ok(fails_to_close())),
        "Host::run fails to close" => run_here(fails_to_close()),
        _ => panic!("no role {role}"),
    }
}

/// A service without a subscriber, as the README shows it, cut a request in its shutdown. It exited
/// with 3 and printed nothing. A stop hook that failed was exit code 4, and no word.
#[test]
fn a_shutdown_without_a_log_prints_what_it_has_lost() {
    let cut = "error: aborted: 0 finished, 0 timed out, 1 aborted, 0 gone of 1 requests; ";
    let failed = "error: hook_failed: 0 finished, 0 timed out, 0 aborted, 0 gone of 0 requests; ";
    for (what, code, line, end) in [
        ("cuts", 3, cut, "; work dropped: 1\n"),
        ("fails to close", 4, failed, &format!("; hook pool: stop failed: {DEAD_DATABASE}\n")),
    ] {
        for entry_point in ["run", "Host::run"] {
            let ended = run_victim("loud::losses::victim", &format!("{entry_point} {what}"));
            assert_eq!(ended.code, Some(code), "{entry_point}: {ended:?}");
            let is_told = ended.stderr.starts_with(line) && ended.stderr.ends_with(end);
            assert!(is_told, "{entry_point}: {}", ended.stderr);
            assert_eq!(ended.stderr.lines().count(), 1, "{entry_point}: {}", ended.stderr);
        }
    }
    for role in ["run cuts, log", "Host::run cuts, log", "run fails to close, log"] {
        let ended = run_victim("loud::losses::victim", role);
        let is_log = |line: &str| line.starts_with('{');
        assert!(ended.stderr.lines().all(is_log), "{role}: {}", ended.stderr);
    }
}
