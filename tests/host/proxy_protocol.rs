//! P5, P5b, P6, P15: the PROXY protocol on addresses that require it. `host::tls::handshake` has it
//! before TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, End, app::Workers, block, frames::frame, now, quick_plan, scratch_path,
    service_fn, settings, until_holds,
};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, connect_info::IntoMakeServiceWithConnectInfo},
    routing::get,
};
use http::Response;
use lameduck::{Host, Limits, RequestContext, runtime::ListenAddress};
use lameduck_wire::http1::get_bytes;
use std::{
    convert::Infallible,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

const ALL_WORKERS: [Workers; 2] = [Workers::Task, Workers::Threads(1)];

pub(super) const VERSION_1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n";

/// Version 2, a TCP connection over IPv4 from 192.0.2.7:54321, with a field that is ignored.
pub(super) const VERSION_2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x07\x0a\0\0\x01\xd4\x31\x01\xbb\
      \x04\0\x02xx";

/// Version 2, the proxy's own connection.
pub(super) const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What `GET /` returns to the client of these headers.
pub(super) const CLIENT: &str = "192.0.2.7:54321 192.0.2.7:54321";

/// Serves the client's address, as the context and axum's `ConnectInfo` have it.
async fn whoami(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> String {
    let context = request.extensions().get::<RequestContext>().unwrap().clone();
    if request.uri().path() == "/slow" {
        crate::support::pause(400).await;
    }
    format!("{peer} {}", context.peer())
}

/// The service of these tests: `/slow` responds after 400 ms.
pub(super) type Service = IntoMakeServiceWithConnectInfo<Router, SocketAddr>;

pub(super) fn service() -> Service {
    let router = Router::new().route("/", get(whoami).post(whoami)).route("/slow", get(whoami));
    router.into_make_service_with_connect_info()
}

/// A host whose only main address requires a header.
pub(super) fn host(address: ListenAddress, limits: Limits) -> lameduck::Builder {
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(8));
    let mut settings = settings().plan(plan).request_timeout(None).limits(limits);
    settings.main_addresses.clear();
    Host::builder(settings.proxy_protocol_address(address))
}

fn start_with(limits: Limits, workers: Workers) -> App {
    let builder = host("127.0.0.1:0".parse().unwrap(), limits);
    App::start_on(builder.serve(service()), workers)
}

fn start(workers: Workers) -> App {
    start_with(Limits::default(), workers)
}

/// Waits until idle connections are in the idle set, where there is one.
fn park() {
    block(Duration::from_millis(1_500));
}

/// Connects and sends these bytes.
pub(super) fn connect(app: &App, bytes: &[u8]) -> Client {
    let mut client = Client::connect(app.main);
    client.send(bytes);
    client
}

fn open(app: &App) -> u64 {
    app.status()["connections"]["open"].as_u64().unwrap()
}

#[test]
fn the_peer_is_the_client_that_the_proxy_announces() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        for header in [VERSION_1, VERSION_2] {
            let mut client = connect(&app, header);
            assert_eq!(client.get("/").body(), CLIENT, "{workers:?}: by the fast path");
            client.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nab");
            assert_eq!(client.answer().body(), CLIENT, "{workers:?}: by hyper");
            assert_eq!(client.get("/slow").body(), CLIENT, "{workers:?}: after a wait");
            park();
            assert_eq!(client.get("/").body(), CLIENT, "{workers:?}: after it was parked");
            assert_eq!(client.get("/slow").body(), CLIENT, "{workers:?}: with a task again");
        }
        let mut silent = connect(&app, VERSION_2);
        park();
        assert_eq!(silent.get("/").body(), CLIENT, "{workers:?}: parked without a request");
        let mut local = connect(&app, LOCAL);
        let own = local.local_address();
        assert_eq!(local.get("/").body(), format!("{own} {own}"), "a health check of the proxy");
        let report = app.end();
        let connections = report.connections;
        assert_eq!((report.code(), connections.handshakes), (0, 0));
        assert_eq!((connections.proxy_headers_refused, connections.close_races), (0, 0));
    }
}

#[test]
fn a_header_may_arrive_in_pieces_and_with_the_first_request() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        for header in [VERSION_1, VERSION_2] {
            let mut client = Client::connect(app.main);
            let (last, first) = header.split_last().unwrap();
            for byte in first {
                client.send([*byte]);
                block(Duration::from_millis(1));
            }
            client.send([&[*last], get_bytes("/").repeat(2).as_bytes()].concat());
            assert_eq!(client.answer().body(), CLIENT, "{workers:?}");
            assert_eq!(client.answer().body(), CLIENT, "{workers:?}");
        }
        assert_eq!(app.end().code(), 0);
    }
}

/// Returns the first DATA of an HTTP/2 connection whose GET request is sent now.
fn http2_body(client: &mut Client) -> String {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 0x5, 1, b"\x82\x84\x86\x41\x09localhost"));
    client.send(bytes);
    loop {
        let head = client.exactly(9).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = client.exactly(length as usize).unwrap();
        if head[3] == 0 {
            return String::from_utf8(payload).unwrap();
        }
    }
}

#[test]
fn a_header_precedes_http2() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        for header in [VERSION_1, VERSION_2] {
            assert_eq!(http2_body(&mut connect(&app, header)), CLIENT, "{workers:?}");
        }
        assert_eq!(app.end().code(), 0);
    }
}

#[test]
fn a_unix_socket_may_require_a_header() {
    let path = scratch_path("proxied.sock");
    let address = ListenAddress::Unix(path.clone());
    let builder = host(address, Limits::default()).serve_hyper(service_fn(
        async |request: http::Request<lameduck::Body>| {
            let peer = request.body().context().peer().to_string();
            Ok::<_, Infallible>(Response::new(Body::from(peer)))
        },
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stop = builder.shutdown_handle();
    let run = runtime.spawn(builder.run());
    let mut client = crate::support::until("the socket", || UnixStream::connect(&path).ok());
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    client.write_all(&[VERSION_2, request.as_bytes()].concat()).unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("\r\n192.0.2.7:54321"), "{response}");
    stop.stop();
    assert_eq!(runtime.block_on(run).unwrap().code(), 0);
}

#[test]
fn a_connection_without_a_header_is_closed_without_a_response() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let bad: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 70000\r\nGET / HTTP/1.1\r\n\r\n",
            &[&VERSION_2[..14], b"\xff\xff"].concat(),
            &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
        ];
        for bytes in bad {
            let mut client = connect(&app, bytes);
            assert_eq!(client.end(), End::Closed, "{:?}", bytes.escape_ascii());
            assert_eq!(client.unread(), b"");
        }
        // A client that leaves in the middle is counted, one that sends nothing is not.
        drop(connect(&app, &VERSION_1[..20]));
        drop(Client::connect(app.main));
        drop(connect(&app, LOCAL));
        until_holds("the ends", || open(&app) == 0);
        let report = app.end();
        assert_eq!((report.code(), report.requests.started), (0, 0));
        assert_eq!(report.connections.proxy_headers_refused, 6, "{workers:?}");
        assert_eq!(report.connections.handshakes_failed, 0);
    }
}

#[test]
fn a_header_is_refused_where_none_is_required() {
    let app = App::start(Host::builder(settings()).serve(service()));
    let mut client = connect(&app, &[VERSION_1, get_bytes("/").as_bytes()].concat());
    assert_eq!(client.answer().status, 400);
    let mut client = connect(&app, &[VERSION_2, get_bytes("/").as_bytes()].concat());
    assert_eq!(client.answer().status, 400);
    assert_eq!(app.end().requests.started, 0);
}

#[test]
fn a_header_has_the_timeout_of_a_head_and_silence_that_of_the_first_byte() {
    let limits = Limits::default()
        .header_timeout(Duration::from_millis(700))
        .first_byte_timeout(Duration::from_millis(1_500));
    for workers in ALL_WORKERS {
        let app = start_with(limits, workers);
        let begin = now();
        let mut half = connect(&app, &VERSION_1[..20]);
        let mut silent = Client::connect(app.main);
        let mut headed = connect(&app, VERSION_2);
        assert_eq!((half.end(), half.unread()), (End::Closed, &b""[..]));
        assert!(begin.elapsed() >= Duration::from_millis(700), "{:?}", begin.elapsed());
        assert_eq!(silent.end(), End::Closed);
        // The header is no first byte of a request.
        assert_eq!(headed.end(), End::Closed);
        assert!(begin.elapsed() >= Duration::from_millis(1_500), "{:?}", begin.elapsed());
        let connections = app.end().connections;
        let timeouts = (connections.first_byte_timeouts, connections.handshake_timeouts);
        assert_eq!((connections.proxy_headers_refused, timeouts), (1, (2, 0)), "{workers:?}");
    }
}

#[test]
fn connections_without_a_whole_header_make_room_at_the_connection_limit() {
    let app = start_with(Limits::default().connections_max(3), Workers::Threads(1));
    let half: Vec<_> = (0..3).map(|_| connect(&app, &VERSION_1[..20])).collect();
    until_holds("the accepts", || open(&app) == 3);
    let mut client = connect(&app, VERSION_1);
    assert_eq!(client.get("/").body(), CLIENT);
    let report = app.end();
    assert_eq!((report.code(), report.connections.evicted), (0, 1));
    drop(half);
}

// A header that is half read is not the beginning of a request: it holds the drain like half a
// head, and no longer. A whole one does not hold it at all.
#[test]
fn headers_do_not_hold_the_drain() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut half = connect(&app, &VERSION_2[..20]);
        let mut whole = connect(&app, VERSION_2);
        let mut local = connect(&app, LOCAL);
        let silent = Client::connect(app.main);
        until_holds("the accepts", || open(&app) == 4);
        let report = app.end();
        assert!(report.shutdown < Duration::from_secs(4), "{workers:?}: {:?}", report.shutdown);
        for client in [&mut half, &mut whole, &mut local] {
            assert_eq!((client.end(), client.unread()), (End::Closed, &b""[..]));
        }
        let connections = report.connections;
        assert_eq!((report.code(), report.requests.started), (0, 0));
        assert_eq!((connections.close_races, connections.proxy_headers_refused), (0, 0));
        assert_eq!(connections.drained, 4, "{workers:?}");
        drop(silent);
    }
}

#[test]
fn a_header_that_is_completed_in_the_drain_is_followed_by_one_response() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut idle = connect(&app, VERSION_1);
        assert_eq!(idle.get("/").body(), CLIENT);
        park();
        let mut half = connect(&app, &VERSION_1[..20]);
        // This one holds the drain open.
        let mut busy = connect(&app, VERSION_2);
        until_holds("the accepts", || open(&app) == 3);
        busy.send_get("/slow");
        until_holds("the request", || app.status()["requests"]["started"] == 2);
        app.stop();
        app.wait_for_phase("draining");
        half.send([&VERSION_1[20..], get_bytes("/").as_bytes()].concat());
        let response = half.answer();
        assert_eq!((response.body().as_str(), response.says_close()), (CLIENT, true));
        assert_eq!(half.end(), End::Closed);
        assert_eq!(busy.answer().body(), CLIENT, "{workers:?}");
        assert_eq!(idle.end(), End::Closed);
        let report = app.report();
        assert_eq!((report.code(), report.requests.finished), (0, 3), "{workers:?}");
        assert_eq!((report.connections.close_races, report.connections.reset), (0, 0));
    }
}
