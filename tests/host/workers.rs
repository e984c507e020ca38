//! P5c: the counts of a worker are written by the tasks of one runtime, whatever safe code of an
//! app does.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, MAX_WAIT, app::Workers, aside, block, builder, frames::Http2, pause, service_fn,
};
use axum::body::Body;
use http::{Request, Response};
use lameduck::{
    Report,
    lifecycle::{Moment, Signal},
    os::{CurrentRuntime, OsNetwork, TokioClock},
    runtime::{BoxFuture, JoinHandle, Runtime, Seed, SignalSource, Spawner, TaskKind},
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};
use tokio::runtime::{self, Builder, Handle};

/// A runtime of the app, with several threads. It lives as long as the process.
fn other() -> &'static runtime::Runtime {
    static OTHER: OnceLock<runtime::Runtime> = OnceLock::new();
    OTHER
        .get_or_init(|| Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap())
}

/// Returns the id and the name of the current thread.
fn name() -> String {
    format!("{:?} {:?}", thread::current().id(), thread::current().name())
}

/// Sends requests on new connections, over HTTP/1 and HTTP/2, and waits for every response.
fn ask(address: std::net::SocketAddr) {
    let clients: Vec<_> = (0..8)
        .map(|n| {
            aside(move || {
                for _ in 0..10 {
                    if n % 2 == 0 {
                        let mut client = Client::connect(address);
                        (0..20).for_each(|_| assert_eq!(client.get("/").body(), "hello"));
                    } else {
                        let mut client = Http2::connect(address);
                        let streams: Vec<u32> = (0..20).map(|_| client.get("/")).collect();
                        streams
                            .into_iter()
                            .for_each(|stream| assert_eq!(client.body(stream), "hello"));
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// Returns the counts of started and finished requests.
fn counts(report: &Report) -> (u64, u64) {
    (report.requests.started, report.requests.finished)
}

// A handler made another runtime the current one of its thread, in safe code. Later connections and
// streams were spawned there, and several threads wrote the counts of one. More requests were
// started than ended, and the exit code was 3 although nothing had been cut.
#[test]
fn a_handler_that_changes_the_current_runtime_does_not_move_connections() {
    let threads = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = threads.clone();
    let service = service_fn(move |_: Request<lameduck::Body>| {
        seen.lock().unwrap().insert(name());
        std::mem::forget(other().enter());
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    });
    let app = App::start_on(builder().serve_hyper(service), Workers::Threads(1));
    ask(app.main);
    let report = app.end();
    let threads = threads.lock().unwrap();
    assert!(
        threads.len() == 1 && threads.iter().all(|name| name.contains("lameduck-worker-0")),
        "{threads:?}"
    );
    assert_eq!((counts(&report), report.code()), ((1_600, 1_600), 0), "{report:?}");
}

/// Waits in a timer of tokio, which is made on the current runtime.
async fn respond(path: &str) -> Body {
    if path == "/timer" {
        pause(10).await;
    }
    Body::from("hello")
}

// A handler made a runtime current that no thread drives. The sockets of later connections, those
// that left the idle set, and later timers belonged to it: they were never ready, and the worker
// served nothing any more. They must belong to the worker's runtime (P15).
#[test]
fn a_handler_that_changes_the_current_runtime_breaks_no_later_socket_or_timer() {
    let service = service_fn(|request: Request<lameduck::Body>| async move {
        if request.uri().path() == "/enter" {
            let undriven = Builder::new_current_thread().enable_all().build().unwrap();
            std::mem::forget(undriven.enter());
            std::mem::forget(undriven);
        }
        Ok::<_, Infallible>(Response::new(respond(request.uri().path()).await))
    });
    let app = App::start_on(builder().serve_hyper(service), Workers::Threads(1));
    let mut idle: Vec<_> = (0..4).map(|_| Client::connect(app.main)).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").body(), "hello");
    }
    // An idle connection without a task, after a second.
    block(Duration::from_millis(1_500));
    let mut enters = Client::connect(app.main);
    let mut opened_before = Client::connect(app.main);
    assert_eq!(enters.get("/enter").body(), "hello");
    assert_eq!(opened_before.get("/").body(), "hello");
    for client in &mut idle {
        client.send("OPTIONS /timer HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(client.answer().body(), "hello");
    }
    for path in ["/", "/timer"] {
        assert_eq!(app.get(path).body(), "hello", "{path} on a new connection");
    }
    let mut http2 = Http2::connect(app.main);
    let stream = http2.get("/timer");
    assert_eq!(http2.body(stream), "hello");
    let report = app.end();
    assert_eq!((counts(&report), report.code()), ((13, 13), 0), "{report:?}");
}

/// A spawner that polls the job of a worker on its own thread, while the worker spawns on the
/// runtime.
#[derive(Debug)]
struct Aside(CurrentRuntime);

impl Spawner for Aside {
    fn workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn spawn(&self, kind: TaskKind, job: BoxFuture) -> io::Result<JoinHandle> {
        if !matches!(kind, TaskKind::Worker(_)) {
            return self.0.spawn(kind, job);
        }
        let runtime = Handle::current();
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        drop(aside(move || {
            let _ended = ended;
            runtime.block_on(job);
        }));
        Ok(Box::pin(async move { drop(end.await) }))
    }

    fn arm_watchdog(&self, _: Moment) {}
}

#[derive(Debug)]
struct NoSignals;

impl SignalSource for NoSignals {
    async fn recv(&mut self) -> Signal {
        pending().await
    }
}

// An implementation of `Spawner` reported how many threads run the tasks of a worker. A wrong
// number lost counts. The counts must be exact with any implementation (P5c).
#[test]
fn counts_are_exact_with_any_spawner() {
    let threads = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = threads.clone();
    let service = service_fn(move |_: Request<lameduck::Body>| {
        seen.lock().unwrap().insert(name());
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    });
    let (bound, addresses) = mpsc::channel();
    let host = builder()
        .on_bound(move |to| bound.send(to.main[0].to_string()).unwrap())
        .serve_hyper(service);
    let stop = host.shutdown_handle();
    let (reported, report) = mpsc::channel();
    drop(aside(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(async {
            let spawner = Aside(CurrentRuntime::new(Handle::current()));
            let (clock, network) = (Arc::new(TokioClock::new()), OsNetwork::default());
            host.run_in(Runtime { clock, network, signals: NoSignals, spawner, seed: Seed(7) })
                .await
        });
        reported.send((name(), report)).unwrap();
    }));
    let address = addresses.recv_timeout(MAX_WAIT).unwrap().parse().unwrap();
    crate::support::until("the listener", || Client::try_connect(address).ok());
    ask(address);
    stop.stop();
    let (runs_on, report) = report.recv_timeout(MAX_WAIT).unwrap();
    assert_eq!((counts(&report), report.code()), ((1_600, 1_600), 0), "{report:?}");
    assert_eq!(*threads.lock().unwrap(), BTreeSet::from([runs_on]));
}
