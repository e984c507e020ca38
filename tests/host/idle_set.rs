//! P4, P5, P6, P8, P9, P15: the idle set: connections without a task. Which requests are served in
//! the set, and when a connection is resumed.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

pub(super) mod bodies;
mod crowds;
mod refusing;

use crate::support::{
    App, Client, End, app::Workers, block, frames::Http2, in_time, now, pause, quick_plan,
    service_fn, settings, until_holds,
};
use axum::body::Body;
use http::{Request, Response};
use lameduck::{
    Host, HttpService, Limits, Report, RequestContext, lifecycle::Plan, runtime::ListenAddress,
};
use std::{
    convert::Infallible,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};

/// A plan whose drain is so long that a connection that delays it is noticed.
fn long_plan() -> Plan {
    quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(15))
}

/// A host whose service calls `answer` with the path and the context.
fn host<A, F>(answer: A) -> Host<impl HttpService>
where
    A: Fn(String, RequestContext) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Body> + Send + 'static,
{
    planned(long_plan(), answer)
}

fn planned<A, F>(plan: Plan, answer: A) -> Host<impl HttpService>
where
    A: Fn(String, RequestContext) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Body> + Send + 'static,
{
    Host::builder(settings().plan(plan)).serve_hyper(service_fn(
        move |request: Request<lameduck::Body>| {
            let context = request.body().context().clone();
            let answer = answer(request.uri().path().to_owned(), context);
            async move { Ok::<_, Infallible>(Response::new(answer.await)) }
        },
    ))
}

fn hello() -> Host<impl HttpService> {
    host(async |_, _| Body::from("hello"))
}

/// Starts the host with one worker on its own thread, as in `lameduck::run`.
fn start<S: HttpService>(host: Host<S>) -> App {
    App::start_on(host, Workers::Threads(1))
}

/// Returns the number of connections to a port that are in the idle set. Its epoll is
/// level-triggered, while the runtime's is edge-triggered.
fn idle_set_len(main: SocketAddr) -> usize {
    let port = format!(":{:04X}", main.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let ours: Vec<u64> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(1)?.ends_with(&port).then(|| fields.get(9)?.parse().ok())?
        })
        .collect();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
        let Ok(info) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
        for line in info.lines().filter_map(|line| line.strip_prefix("tfd:")) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let events = u32::from_str_radix(fields[2], 16).unwrap();
            let inode = fields.iter().find_map(|field| field.strip_prefix("ino:")).unwrap();
            let inode = u64::from_str_radix(inode, 16).unwrap();
            count += usize::from(events & EDGE_TRIGGERED == 0 && ours.contains(&inode));
        }
    }
    count
}

const EDGE_TRIGGERED: u32 = 1 << 31;

#[track_caller]
fn wait_for_idle(app: &App, count: usize) {
    until_holds("the connections in the idle set", || idle_set_len(app.main) == count);
}

/// Clients whose connections are in the idle set after a response each.
#[track_caller]
fn idle_clients<const N: usize>(app: &App) -> [Client; N] {
    let mut clients = std::array::from_fn(|_| Client::connect(app.main));
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    wait_for_idle(app, N);
    clients
}

/// Returns the counts of started, finished, timed out, aborted and gone requests.
fn outcomes(report: &Report) -> [u64; 5] {
    let requests = &report.requests;
    [requests.started, requests.finished, requests.timed_out, requests.aborted, requests.gone]
}

/// Returns the counts of accepted and drained connections, close races, and reset connections.
fn connections(report: &Report) -> [u64; 4] {
    let connections = &report.connections;
    assert_eq!(connections.open(), 0, "{connections:?}");
    [connections.accepted, connections.drained, connections.close_races, connections.reset]
}

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A connection keeps its task, and the state of the fast path, for a second after a request.
#[test]
fn a_connection_that_was_just_used_is_not_in_the_idle_set() {
    in_time(|| {
        let app = start(hello());
        let begin = now();
        let mut clients: [Client; 20] = std::array::from_fn(|_| Client::connect(app.main));
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        let idle = idle_set_len(app.main);
        let is_in_time = begin.elapsed() < Duration::from_millis(900);
        let _ = app.end();
        is_in_time.then(|| assert_eq!(idle, 0))
    });
}

#[test]
fn an_idle_connection_is_served_in_the_idle_set() {
    let app = start(hello());
    let [mut client, gone] = idle_clients(&app);
    for _ in 0..3 {
        assert_eq!(client.get("/").body(), "hello");
        assert_eq!(idle_set_len(app.main), 2);
    }
    drop(gone);
    wait_for_idle(&app, 1);
    let report = app.end();
    assert_eq!(client.end(), End::Closed);
    assert_eq!(outcomes(&report), [5, 5, 0, 0, 0]);
    assert_eq!(connections(&report), [2, 1, 0, 0]);
}

#[test]
fn a_request_beyond_the_fast_path_resumes_an_idle_connection() {
    let limits = Limits::default().header_timeout(Duration::from_millis(300));
    let service = service_fn(async |_: Request<lameduck::Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let app =
        start(Host::builder(settings().plan(long_plan()).limits(limits)).serve_hyper(service));
    let [mut burst, mut options, mut half, mut scrap, mut garbage, mut last] = idle_clients(&app);
    burst.send(GET.repeat(40));
    options.send("OPTIONS / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc");
    half.send("GET / HTTP/1.1\r\nhost: test\r\n");
    scrap.send("P");
    garbage.send("\0\0\0\0 garbage\r\n\r\n");
    last.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    for _ in 0..40 {
        assert_eq!(burst.answer().body(), "hello");
    }
    assert_eq!(options.answer().body(), "hello");
    for client in [&mut half, &mut scrap] {
        let begin = now();
        assert_eq!(client.answer().status, 408);
        assert!(begin.elapsed() < Duration::from_secs(3));
        assert_eq!(client.end(), End::Closed);
    }
    assert_eq!(garbage.answer().status, 400);
    assert_eq!(last.answer().body(), "hello");
    assert_eq!(last.end(), End::Closed);
    let report = app.end();
    assert_eq!(outcomes(&report), [48, 48, 0, 0, 0]);
    assert_eq!(connections(&report)[..1], [6]);
}

#[test]
fn the_drain_reads_each_idle_connection_once_more() {
    let blocked = Arc::new(AtomicBool::new(false));
    let app = start(host({
        let blocked = blocked.clone();
        move |path, _| {
            let blocked = blocked.clone();
            async move {
                if path == "/block" {
                    blocked.store(true, SeqCst);
                    until_holds("the release", || !blocked.load(SeqCst));
                }
                Body::from("hello")
            }
        }
    }));
    let [mut blocker, mut whole, mut half, mut silent, gone, mut shut] = idle_clients(&app);
    blocker.send_get("/block");
    until_holds("the block", || blocked.load(SeqCst));
    app.stop();
    until_holds("the drain", || app.status()["phase"] == "draining");
    whole.send(GET);
    half.send("GET / HTTP/1.1\r\nhost: test\r\n");
    drop(gone);
    shut.send(GET);
    shut.shut_write();
    blocked.store(false, SeqCst);
    for client in [&mut blocker, &mut whole, &mut shut] {
        let answer = client.answer();
        assert_eq!((&*answer.body(), answer.says_close()), ("hello", true));
        assert_eq!(client.end(), End::Closed);
    }
    assert_eq!(silent.end(), End::Closed);
    half.send("\r\n");
    assert_eq!(half.answer().body(), "hello");
    let report = app.report();
    assert!(report.shutdown < Duration::from_secs(3), "{:?}", report.shutdown);
    assert_eq!(outcomes(&report), [10, 10, 0, 0, 0]);
    assert_eq!(connections(&report), [6, 6, 0, 0]);
}

#[test]
fn connections_without_a_byte_get_the_first_byte_grace_in_the_idle_set() {
    let (app, mut crowd, mut late) = in_time(|| {
        let app = start(hello());
        let crowd: Vec<_> = (0..400).map(|_| Client::connect(app.main)).collect();
        until_holds("some in the idle set", || idle_set_len(app.main) > 100);
        let begin = now();
        let mut late = Client::connect(app.main);
        until_holds("all of them", || app.status()["connections"]["open"] == 401);
        app.stop();
        late.send(GET);
        // The grace is 250 ms.
        (begin.elapsed() < Duration::from_millis(150)).then_some((app, crowd, late))
    });
    assert_eq!(late.answer().body(), "hello");
    let report = app.report();
    assert!(report.shutdown < Duration::from_secs(5), "{:?}", report.shutdown);
    for client in &mut crowd {
        assert_eq!(client.end(), End::Closed);
    }
    let [accepted, drained, close_races, reset] = connections(&report);
    assert_eq!([accepted, close_races, reset], [401, 0, 0]);
    // The late one may be served, and closed, before the drain begins.
    assert!(drained >= 400, "{drained}");
}

#[test]
fn http2_resumes_an_idle_connection() {
    let app = start(hello());
    // Many connections that are idle without having sent a byte.
    let crowd: Vec<_> = (0..300).map(|_| Client::connect(app.main)).collect();
    until_holds("some in the idle set", || idle_set_len(app.main) > 30);
    let mut part = Client::connect(app.main);
    block(Duration::from_millis(50));
    part.send("PRI * HTT");
    let mut client = Http2::connect(app.main);
    let stream = client.get("/");
    assert_eq!(client.body(stream), "hello");
    drop(client);
    let report = app.end();
    assert_eq!(connections(&report)[0], 302);
    drop((crowd, part));
}

#[test]
fn a_handler_that_waits_resumes_its_idle_connection() {
    let bell = Arc::new(Notify::new());
    let timeout = Duration::from_millis(400);
    let app = start({
        let bell = bell.clone();
        Host::builder(settings().plan(long_plan()).request_timeout(Some(timeout))).serve_hyper(
            service_fn(move |request: Request<lameduck::Body>| {
                let bell = bell.clone();
                async move {
                    match request.uri().path() {
                        "/timer" => pause(20).await,
                        "/bell" => bell.notified().await,
                        "/task" => {
                            let mut tasks = JoinSet::new();
                            tasks.spawn(pause(20));
                            tasks.join_next().await.unwrap().unwrap();
                        }
                        "/never" => std::future::pending().await,
                        "/yield" => tokio::task::yield_now().await,
                        _ => {}
                    }
                    Ok::<_, Infallible>(Response::new(Body::from("hello")))
                }
            }),
        )
    });
    let [mut timer, mut waiter, mut task, mut never, mut yielder] = idle_clients(&app);
    for (client, path) in [(&mut timer, "/timer"), (&mut task, "/task"), (&mut yielder, "/yield")] {
        assert_eq!(client.get(path).body(), "hello");
    }
    waiter.send_get("/bell");
    assert!(waiter.is_silent_for(Duration::from_millis(50)));
    bell.notify_one();
    assert_eq!(waiter.answer().body(), "hello");
    let begin = now();
    assert_eq!(never.get("/never").status, 503);
    let took = begin.elapsed();
    assert!(took >= timeout && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(outcomes(&app.end()), [10, 9, 1, 0, 0]);
}

#[test]
fn a_handler_that_began_in_the_idle_set_is_aborted_with_a_503() {
    let plan = long_plan().drain(Duration::from_millis(200));
    let app = start(planned(plan, async |path, _| match &*path {
        "/never" => std::future::pending().await,
        _ => Body::from("hello"),
    }));
    let [mut client] = idle_clients(&app);
    client.send_get("/never");
    until_holds("its start", || app.status()["in_flight"] == 1);
    app.stop();
    assert_eq!(client.answer().status, 503);
    assert_eq!(outcomes(&app.report()), [2, 1, 0, 1, 0]);
}

// Some instrumentation reads the id of the current task, and tokio panics outside of a task. The
// same request was a 500 if its connection was in the idle set. A handler must always run in a
// task.
#[test]
fn a_handler_that_begins_in_the_idle_set_runs_in_a_task() {
    let app = start(host(async |_, _| {
        let _ = tokio::task::id();
        Body::from("hello")
    }));
    let [mut client] = idle_clients(&app);
    assert_eq!(client.get("/").status, 200);
    let _ = app.end();
}

#[test]
fn a_unix_and_a_tcp_connection_of_one_worker_are_both_in_the_idle_set() {
    let path = crate::support::scratch_path("deep.sock");
    let service = service_fn(async |_: Request<lameduck::Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let address = format!("unix:{}", path.display()).parse::<ListenAddress>().unwrap();
    let app = start(
        Host::builder(settings().plan(long_plan()).main_address(address)).serve_hyper(service),
    );
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(crate::support::MAX_WAIT)).unwrap();
    let ask = |stream: &mut UnixStream| {
        stream.write_all(GET.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap();
        assert!(
            answer[..read].starts_with(b"HTTP/1.1 200 "),
            "{:?}",
            String::from_utf8_lossy(&answer[..read])
        );
    };
    ask(&mut stream);
    let [mut client] = idle_clients(&app);
    // The Unix connection has been idle for longer than the other.
    ask(&mut stream);
    assert_eq!(client.get("/").body(), "hello");
    let left = UnixStream::connect(&path).unwrap();
    drop(left);
    let report = app.end();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(client.end(), End::Closed);
    assert_eq!(outcomes(&report), [4, 4, 0, 0, 0]);
    assert_eq!(connections(&report)[..1], [3]);
}

#[test]
fn an_idle_connection_is_served_on_a_shared_single_threaded_runtime() {
    let app = App::start_on(hello(), Workers::OneThread);
    let [mut client] = idle_clients(&app);
    assert_eq!(client.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(client.end(), End::Closed);
    assert_eq!(outcomes(&report), [2, 2, 0, 0, 0]);
    assert_eq!(connections(&report), [1, 1, 0, 0]);
}

#[test]
fn a_lame_duck_announces_the_close_to_its_idle_connections() {
    let lame_duck = Duration::from_millis(1_500);
    let (app, mut one, mut two) = in_time(|| {
        let plan = long_plan().lame_duck(lame_duck);
        let app = start(planned(plan, async |_, _| Body::from("hello")));
        let [mut one, two] = idle_clients(&app);
        let begin = now();
        app.stop();
        app.wait_for_phase("lame_duck");
        let idle = idle_set_len(app.main);
        one.send(GET.repeat(2));
        if begin.elapsed() > lame_duck {
            return None;
        }
        assert_eq!(idle, 2);
        Some((app, one, two))
    });
    let answer = one.answer();
    assert_eq!((&*answer.body(), answer.says_close()), ("hello", true));
    assert_eq!(one.end(), End::Closed);
    drop(one);
    assert!(two.is_silent_for(Duration::from_millis(50)));
    let report = app.report();
    assert_eq!(two.end(), End::Closed);
    assert_eq!(outcomes(&report), [3, 3, 0, 0, 0]);
    assert_eq!(connections(&report), [2, 1, 1, 0]);
}
