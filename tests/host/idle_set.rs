//! P4, P5, P6, P8, P9, P15: the idle set: connections without a task. Which requests are served in
//! the set, and when a connection is resumed.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, End, app::Workers, aside, block, frames::Http2, now, pause, quick_plan, settings,
    until_holds,
};
use axum::body::{Body, Bytes};
use http::{Request, Response};
use hyper::{
    body::{Frame, SizeHint},
    service::service_fn,
};
use lameduck::{
    Host, HttpService, Limits, Report, RequestContext,
    lifecycle::{Plan, Signal},
    os::{
        CurrentRuntime, EpollPoller, IdleSocket, OsListener, OsNetwork, OsReservation, TokioClock,
    },
    runtime::{
        Address, IdlePoller, ListenAddress, Listener, Network, QuiesceOutcome, Reservation,
        Runtime, Seed, ServerRole, SignalSource,
    },
};
use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
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
fn asleep(main: SocketAddr) -> usize {
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
fn wait_for_sleepers(app: &App, count: usize) {
    until_holds("the sleepers", || asleep(app.main) == count);
}

/// Clients whose connections are in the idle set after a response each.
#[track_caller]
fn sleepers<const N: usize>(app: &App) -> [Client; N] {
    let mut clients = std::array::from_fn(|_| Client::connect(app.main));
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    wait_for_sleepers(app, N);
    clients
}

/// Returns the counts of started, finished, timed out, aborted and gone requests.
fn fates(report: &Report) -> [u64; 5] {
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

#[test]
fn an_idle_connection_is_served_in_the_idle_set() {
    let app = start(hello());
    let [mut client, gone] = sleepers(&app);
    for _ in 0..3 {
        assert_eq!(client.get("/").body(), "hello");
        assert_eq!(asleep(app.main), 2);
    }
    drop(gone);
    wait_for_sleepers(&app, 1);
    let report = app.end();
    assert_eq!(client.end(), End::Closed);
    assert_eq!(fates(&report), [5, 5, 0, 0, 0]);
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
    let [mut burst, mut post, mut half, mut scrap, mut garbage, mut last] = sleepers(&app);
    burst.send(GET.repeat(40));
    post.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc");
    half.send("GET / HTTP/1.1\r\nhost: test\r\n");
    scrap.send("P");
    garbage.send("\0\0\0\0 garbage\r\n\r\n");
    last.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    for _ in 0..40 {
        assert_eq!(burst.answer().body(), "hello");
    }
    assert_eq!(post.answer().body(), "hello");
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
    assert_eq!(fates(&report), [48, 48, 0, 0, 0]);
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
                    block(Duration::from_millis(300));
                }
                Body::from("hello")
            }
        }
    }));
    let [mut blocker, mut whole, mut half, mut silent, gone, mut shut] = sleepers(&app);
    blocker.send_get("/block");
    until_holds("the block", || blocked.load(SeqCst));
    app.stop();
    until_holds("the drain", || app.status()["phase"] == "draining");
    whole.send(GET);
    half.send("GET / HTTP/1.1\r\nhost: test\r\n");
    drop(gone);
    shut.send(GET);
    shut.shut_write();
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
    assert_eq!(fates(&report), [10, 10, 0, 0, 0]);
    assert_eq!(connections(&report), [6, 6, 0, 0]);
}

#[test]
fn connections_without_a_byte_get_the_first_byte_grace_in_the_idle_set() {
    let app = start(hello());
    let mut crowd: Vec<_> = (0..400).map(|_| Client::connect(app.main)).collect();
    until_holds("some to sleep", || asleep(app.main) > 100);
    let mut late = Client::connect(app.main);
    until_holds("all of them", || app.status()["connections"]["open"] == 401);
    app.stop();
    late.send(GET);
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
    until_holds("some to sleep", || asleep(app.main) > 30);
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
    let [mut timer, mut waiter, mut task, mut never, mut yielder] = sleepers(&app);
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
    assert_eq!(fates(&app.end()), [10, 9, 1, 0, 0]);
}

#[test]
fn a_handler_that_began_in_the_idle_set_is_aborted_with_a_503() {
    let plan = long_plan().drain(Duration::from_millis(200));
    let app = start(planned(plan, async |path, _| match &*path {
        "/never" => std::future::pending().await,
        _ => Body::from("hello"),
    }));
    let [mut client] = sleepers(&app);
    client.send_get("/never");
    until_holds("its start", || app.status()["in_flight"] == 1);
    app.stop();
    assert_eq!(client.answer().status, 503);
    assert_eq!(fates(&app.report()), [2, 1, 0, 1, 0]);
}

/// A body that panics in `size_hint`.
struct Rude;

impl http_body::Body for Rude {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        panic!("asked for its length, on purpose")
    }
}

// An uncaught panic of a body costs its connection the task. A connection in the idle set has none,
// so the panic ended the worker with all its connections. It must cost only its own connection
// (P15).
#[test]
fn a_panic_of_a_body_in_the_idle_set_costs_only_its_connection() {
    let app = start(host(async |path, _| match &*path {
        "/rude" => Body::new(Rude),
        "/panic" => panic!("on purpose"),
        _ => Body::from("hello"),
    }));
    let [mut rude, mut handler, mut neighbour] = sleepers(&app);
    assert_eq!(handler.get("/panic").status, 500);
    rude.send_get("/rude");
    assert!(rude.try_answer().is_err());
    assert_eq!(neighbour.get("/").body(), "hello");
    assert_eq!(app.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(connections(&report)[..1], [4]);
    let [started, finished, timed_out, aborted, gone] = fates(&report);
    assert_eq!(started, finished + timed_out + aborted + gone);
}

/// A body that yields its four bytes, and fails at once or after a moment.
struct Fails {
    left: Option<&'static str>,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Fails {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(left) = self.left.take() {
            return Poll::Ready(Some(Ok(Frame::data(left.into()))));
        }
        let wait = self.wait.as_mut().map_or(Poll::Ready(()), |wait| wait.as_mut().poll(cx));
        wait.map(|()| Some(Err(io::Error::other("the upstream broke"))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(4)
    }
}

// A body failed in the idle set, and its connection was reset together with earlier responses. An
// error that came after the promised bytes was not noticed. One that comes before anything was
// written must become a 500, and one that comes later must cut the response (P5d).
#[test]
fn a_body_that_fails_in_the_idle_set_becomes_a_500_or_cuts_its_response() {
    let app = start(host(async |path, _| match &*path {
        "/at-once" => Body::new(Fails { left: Some("four"), wait: None }),
        "/late" => Body::new(Fails { left: Some("four"), wait: Some(Box::pin(pause(100))) }),
        _ => Body::from("hello"),
    }));
    let [mut at_once, mut late] = sleepers(&app);
    at_once.send(format!("{GET}GET /at-once HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    assert_eq!(at_once.answer().body(), "hello");
    assert_eq!(at_once.answer().status, 500);
    assert_eq!(at_once.answer().body(), "hello", "the connection goes on");
    late.send(format!("{GET}GET /late HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    assert_eq!(late.answer().body(), "hello");
    assert_eq!(late.try_answer().unwrap_err(), End::Reset);
    let report = app.end();
    assert_eq!(fates(&report), [7, 5, 0, 2, 0], "{report:?}");
    assert_eq!(connections(&report), [2, 1, 0, 1], "{report:?}");
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
    let [mut client] = sleepers(&app);
    assert_eq!(client.get("/").status, 200);
    let _ = app.end();
}

// After a close, the watch for late bytes expired by the clock before its first read, because the
// worker was busy for longer than the watch. Late bytes were not counted. A close race must be
// counted, however late the watch runs (P5b).
#[test]
fn a_close_race_is_counted_even_if_its_watch_runs_late() {
    let app = start(host(async |path, context| {
        if path == "/busy" {
            context.draining().await;
            pause(3).await;
            block(Duration::from_millis(300));
        }
        Body::from("hello")
    }));
    let [mut client] = sleepers(&app);
    let mut busy = Client::connect(app.main);
    busy.send_get("/busy");
    until_holds("its start", || app.status()["in_flight"] == 1);
    let racer = aside(move || {
        assert_eq!(client.end(), End::Closed);
        client.send(GET);
        let _ = client.end();
    });
    block(Duration::from_millis(50));
    app.stop();
    let report = app.report();
    racer.join().unwrap();
    assert_eq!(busy.answer().body(), "hello");
    assert_eq!(connections(&report), [2, 2, 1, 0]);
}

#[test]
fn a_connection_in_the_idle_set_expires_and_can_be_evicted() {
    // Long enough to see them idle first: the check reads `/proc` for every descriptor in use.
    let limits = Limits::default().keep_alive(Duration::from_secs(4)).connections_max(3);
    let service = service_fn(async |_: Request<lameduck::Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let app =
        start(Host::builder(settings().plan(long_plan()).limits(limits)).serve_hyper(service));
    let [mut first, mut second, third] = sleepers(&app);
    drop(third);
    let mut fourth = Client::connect(app.main);
    assert_eq!(fourth.get("/").body(), "hello");
    assert_eq!(first.end(), End::Closed);
    assert_eq!(second.end(), End::Closed);
    let _ = app.end();
}

#[test]
fn a_thousand_idle_clients_that_do_not_close_are_counted_and_do_not_delay_the_exit() {
    let app = start(hello());
    let mut crowd: Vec<_> = (0..1_000).map(|_| Client::connect(app.main)).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/").status, 200);
    }
    wait_for_sleepers(&app, 1_000);
    // Half of the clients send a request at the same time. The stop finds some requests in the
    // kernel; others arrive after the FIN.
    let racer = aside(move || {
        let mut answered = 0;
        for client in &mut crowd[..500] {
            let _ = client.try_send(GET);
        }
        for client in &mut crowd[..500] {
            answered += u64::from(client.try_answer().is_ok_and(|answer| answer.status == 200));
        }
        let ended = crowd[500..].iter_mut().all(|client| client.end() == End::Closed);
        (answered, ended)
    });
    app.stop();
    let report = app.report();
    let (answered, ended) = racer.join().unwrap();
    assert!(ended);
    assert!(report.shutdown < Duration::from_secs(4), "{:?}", report.shutdown);
    let [accepted, drained, close_races, reset] = connections(&report);
    assert_eq!((accepted, reset), (1_000, 0));
    assert_eq!(fates(&report), [1_000 + answered, 1_000 + answered, 0, 0, 0]);
    assert!(drained <= 1_000, "{drained}");
    assert!(answered + close_races <= 500, "{answered} {close_races}");
}

#[test]
fn a_flood_of_new_connections_does_not_starve_an_idle_one() {
    let app = start(hello());
    let [mut client] = sleepers(&app);
    let over = Arc::new(AtomicBool::new(false));
    let flood = aside({
        let (over, main) = (over.clone(), app.main);
        move || {
            while !over.load(SeqCst) {
                crate::support::get(main, "/");
            }
        }
    });
    for _ in 0..200 {
        assert_eq!(client.get("/").body(), "hello");
    }
    over.store(true, SeqCst);
    flood.join().unwrap();
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
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
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
    let [mut client] = sleepers(&app);
    // The Unix connection has been idle for longer than the other.
    ask(&mut stream);
    assert_eq!(client.get("/").body(), "hello");
    let left = UnixStream::connect(&path).unwrap();
    drop(left);
    let report = app.end();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(client.end(), End::Closed);
    assert_eq!(fates(&report), [4, 4, 0, 0, 0]);
    assert_eq!(connections(&report)[..1], [3]);
}

#[test]
fn an_idle_connection_is_served_on_a_shared_single_threaded_runtime() {
    let app = App::start_on(hello(), Workers::OneThread);
    let [mut client] = sleepers(&app);
    assert_eq!(client.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(client.end(), End::Closed);
    assert_eq!(fates(&report), [2, 2, 0, 0, 0]);
    assert_eq!(connections(&report), [1, 1, 0, 0]);
}

#[test]
fn a_lame_duck_announces_the_close_to_its_idle_connections() {
    let plan = long_plan().lame_duck(Duration::from_millis(1_500));
    let app = start(planned(plan, async |_, _| Body::from("hello")));
    let [mut one, mut two] = sleepers(&app);
    app.stop();
    until_holds("the lame duck", || app.status()["phase"] == "lame_duck");
    assert_eq!(asleep(app.main), 2);
    one.send(GET.repeat(2));
    let answer = one.answer();
    assert_eq!((&*answer.body(), answer.says_close()), ("hello", true));
    assert_eq!(one.end(), End::Closed);
    drop(one);
    assert!(two.is_silent_for(Duration::from_millis(50)));
    let report = app.report();
    assert_eq!(two.end(), End::Closed);
    assert_eq!(fates(&report), [3, 3, 0, 0, 0]);
    assert_eq!(connections(&report), [2, 1, 1, 0]);
}

// With many connections, all are idle at once, and a new connection takes the slot of one that has
// left. Each must get its own responses.
#[test]
fn connections_that_come_and_go_in_a_full_idle_set_get_their_own_responses() {
    let app = start(host(async |path, _| {
        if path.ends_with('7') {
            tokio::task::yield_now().await;
        }
        Body::from(path)
    }));
    let mut crowd: Vec<_> = (0..400).map(|_| Client::connect(app.main)).collect();
    let (mut accepted, mut asked) = (400, 0);
    for round in 0..40 {
        for n in (round % 7..400).step_by(7) {
            crowd[n].send_get(&format!("/{round}/{n}"));
        }
        for n in (round % 5..400).step_by(5) {
            if n % 7 != round % 7 {
                crowd[n] = Client::connect(app.main);
                accepted += 1;
            }
        }
        for n in (round % 7..400).step_by(7) {
            assert_eq!(crowd[n].answer().body(), format!("/{round}/{n}"));
            asked += 1;
        }
    }
    // The kernel may hold new connections while closed ones are not noticed yet.
    until_holds("the crowd", || {
        let connections = &app.status()["connections"];
        connections["accepted"] == accepted && connections["open"] == 400
    });
    let report = app.end();
    assert_eq!(fates(&report), [asked, asked, 0, 0, 0]);
    assert_eq!(connections(&report), [accepted, 400, 0, 0]);
}

/// The system's network with idle pollers that refuse every connection and count the attempts.
#[derive(Clone, Debug)]
struct Refusing {
    network: OsNetwork,
    asked: Arc<AtomicUsize>,
    bound: mpsc::Sender<SocketAddr>,
}

#[derive(Debug)]
struct Refused<T>(T, Refusing);

impl Network for Refusing {
    type Listener = Refused<OsListener>;
    type Reservation = Refused<OsReservation>;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Refused<OsReservation>> {
        let reservation = self.network.reserve(address, role, listeners)?;
        self.bound.send(reservation.local().tcp().unwrap()).unwrap();
        Ok(Refused(reservation, self.clone()))
    }
}

impl Reservation for Refused<OsReservation> {
    type Listener = Refused<OsListener>;

    fn local(&self) -> Address {
        self.0.local()
    }

    async fn listen(self) -> io::Result<Vec<Refused<OsListener>>> {
        let Self(reservation, refusing) = self;
        let listeners = reservation.listen().await?;
        Ok(listeners.into_iter().map(|listener| Refused(listener, refusing.clone())).collect())
    }
}

impl Listener for Refused<OsListener> {
    type Io = <OsListener as Listener>::Io;
    type IdlePoller = Refused<EpollPoller>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        self.0.poll_accept(cx)
    }

    fn local(&self) -> Address {
        self.0.local()
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        self.0.quiesce()
    }

    fn idle_poller(&self) -> Option<Refused<EpollPoller>> {
        self.0.idle_poller().map(|poller| Refused(poller, self.1.clone()))
    }
}

impl IdlePoller for Refused<EpollPoller> {
    type Io = <EpollPoller as IdlePoller>::Io;
    type Idle = IdleSocket;

    fn insert(&mut self, io: Self::Io, _: usize) -> Result<IdleSocket, Self::Io> {
        self.1.asked.fetch_add(1, SeqCst);
        Err(io)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        self.0.poll_ready(cx, found)
    }

    fn remove(&mut self, idle: IdleSocket) -> io::Result<(Self::Io, Bytes)> {
        self.0.remove(idle)
    }
}

/// A source without signals.
#[derive(Debug)]
struct Silence;

impl SignalSource for Silence {
    async fn recv(&mut self) -> Signal {
        std::future::pending().await
    }
}

// The kernel can refuse to watch another descriptor (ENOMEM, ENOSPC). A refused connection had been
// idle for long enough to be suspended, and so tried again at once, in a loop. One idle connection
// used a whole core. It must not try again.
#[test]
fn a_connection_that_the_idle_set_refuses_does_not_try_again_in_a_loop() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (bound, addresses) = mpsc::channel();
    let network = Refusing { network: OsNetwork::default(), asked: asked.clone(), bound };
    let host = hello();
    let stop = host.shutdown_handle();
    let server = aside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let spawner = CurrentRuntime::new(tokio::runtime::Handle::current());
            host.run_in(Runtime {
                clock: Arc::new(TokioClock::new()),
                network,
                signals: Silence,
                spawner,
                seed: Seed(7),
            })
            .await
        })
    });
    let main = addresses.recv().unwrap();
    let mut client = crate::support::until("the host", || Client::try_connect(main).ok());
    assert_eq!(client.get("/").body(), "hello");
    until_holds("a refusal", || asked.load(SeqCst) > 0);
    block(Duration::from_millis(300));
    let asked = asked.load(SeqCst);
    assert!(asked < 5, "asked {asked} times");
    assert_eq!(client.get("/").body(), "hello");
    stop.stop();
    assert_eq!(fates(&server.join().unwrap()), [2, 2, 0, 0, 0]);
    assert_eq!(client.end(), End::Closed);
}
