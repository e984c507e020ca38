//! Tower services: their readiness, the extractors of axum, and unit tests of handlers.

use crate::support::{App, Client, builder, scratch_path, settings};
use axum::{
    Router,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    routing::{get, post},
};
use lameduck::{Host, RequestContext, RouteTimeout, TestHost, lifecycle::Phase, runtime::Address};
use std::{
    future::Ready,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{Service, ServiceExt, limit::ConcurrencyLimit};

#[test]
fn the_host_waits_for_a_tower_service_that_is_not_ready() {
    // The service handles one request at a time on all connections. The second request finds it
    // busy, and must be woken when it is free.
    let router = Router::new().route("/", get(|| async { crate::support::pause(200).await }));
    let app = App::start(builder().serve(ConcurrencyLimit::new(router, 1)));
    let mut clients = [(); 3].map(|()| Client::connect(app.main));
    for client in &mut clients {
        client.send_get("/");
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    let report = app.end();
    assert_eq!((report.code(), report.requests.finished), (0, 3), "{report:?}");
}

#[test]
fn a_tower_service_that_cannot_become_ready_is_a_500() {
    #[derive(Clone)]
    struct Broken;
    impl Service<http::Request<lameduck::Body>> for Broken {
        type Response = http::Response<String>;
        type Error = &'static str;
        type Future = Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err("broken for good"))
        }
        fn call(&mut self, _: http::Request<lameduck::Body>) -> Self::Future {
            panic!("called though it was not ready");
        }
    }
    let app = App::start(builder().serve(Broken));
    let mut client = Client::connect(app.main);
    for _ in 0..2 {
        assert_eq!(client.get("/").status, 500);
    }
    let report = app.end();
    assert_eq!((report.requests.finished, report.requests.panicked), (2, 0), "{report:?}");
}

async fn whoami(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    client.to_string()
}

#[test]
fn connect_info_is_the_clients_address_on_every_path() {
    // A handler with `ConnectInfo<SocketAddr>` got a 500 for every request. A service that makes
    // services, which axum needs for it, could not be hosted.
    let router = Router::new().route("/", get(whoami)).route("/upload", post(whoami));
    let app =
        App::start(builder().serve(router.into_make_service_with_connect_info::<SocketAddr>()));
    let mut client = Client::connect(app.main);
    let address = client.local_address().to_string();
    for _ in 0..2 {
        assert_eq!(client.get("/").body(), address, "the fast path");
    }
    client.send("POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi");
    assert_eq!(client.answer().body(), address, "through hyper");
    assert_eq!(client.get("/").body(), address, "parked again");
    let mut http2 = crate::support::frames::Http2::connect(app.main);
    let stream = http2.get("/");
    assert!(http2.body(stream).starts_with("127.0.0.1:"));
    assert_eq!(app.end().code(), 0);
}

/// A peer with an address of either kind.
#[derive(Clone, Debug)]
struct Peer(String);

impl Connected<Address> for Peer {
    fn connect_info(peer: Address) -> Self {
        Self(peer.to_string())
    }
}

fn get_by_unix_socket(path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it responds");
    response
}

#[test]
fn a_unix_client_has_no_socket_address_but_a_custom_connect_info_works_for_both() {
    let paths = [scratch_path("tcp.sock"), scratch_path("both.sock")];
    let unix =
        |path: &std::path::Path| format!("unix:{}", path.display()).parse().expect("an address");
    let router = Router::new().route("/", get(whoami));
    let app = App::start(
        Host::builder(settings().main_address(unix(&paths[0])))
            .serve(router.into_make_service_with_connect_info::<SocketAddr>()),
    );
    let response = get_by_unix_socket(&paths[0]);
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
    assert!(app.get("/").body().starts_with("127.0.0.1:"));
    assert_eq!(app.end().code(), 0);

    let router =
        Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<Peer>| async { peer.0 }));
    let app = App::start(
        Host::builder(settings().main_address(unix(&paths[1])))
            .serve(router.into_make_service_with_connect_info::<Peer>()),
    );
    let response = get_by_unix_socket(&paths[1]);
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("unix:"), "{response}");
    assert!(app.get("/").body().starts_with("127.0.0.1:"));
    assert_eq!(app.end().code(), 0);
}

async fn deadline(context: RequestContext) -> String {
    format!("{:?}", context.remaining())
}

#[test]
fn a_request_context_is_an_extractor() {
    let router = Router::new()
        .route("/", get(|context: RequestContext| async move { context.app_version().to_owned() }))
        .route(
            "/optional",
            get(|context: Option<RequestContext>| async move { context.is_some().to_string() }),
        );
    let app = App::start(Host::builder(settings().app_version("1.2.3")).serve(router));
    assert_eq!(app.get("/").body(), "1.2.3");
    assert_eq!(app.get("/optional").body(), "true");
    assert_eq!(app.end().code(), 0);
}

#[tokio::test]
async fn a_request_without_a_context_gets_an_error_that_explains_how_to_get_one() {
    let router = Router::new().route("/", get(deadline)).route(
        "/optional",
        get(|context: Option<RequestContext>| async move { context.is_some().to_string() }),
    );
    let bare = |path: &str| {
        Request::get(path.to_owned()).body(axum::body::Body::empty()).expect("a request")
    };
    let response = router.clone().oneshot(bare("/")).await.expect("infallible");
    assert_eq!(response.status(), 500);
    let text = text(response).await;
    assert!(text.contains("lameduck::RequestContext") && text.contains("TestHost"), "{text}");
    assert_eq!(text_of(router, bare("/optional")).await, "false");
}

async fn text(response: axum::response::Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn text_of<B>(router: Router, request: http::Request<B>) -> String
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    text(router.oneshot(request).await.expect("infallible")).await
}

#[tokio::test]
async fn a_handlers_unit_test_controls_its_deadline() {
    // A context could not be made outside of the crate, so the unit test of any handler that takes
    // one ended in a 500. `TestHost` must make contexts, and control the deadline.
    let host = TestHost::new();
    let router = Router::new()
        .route("/", get(deadline))
        .route("/slow", get(deadline).layer(RouteTimeout::after(Duration::from_secs(30))))
        .route("/free", get(deadline).layer(RouteTimeout::none()))
        .route("/upload", post(deadline));
    assert_eq!(text_of(router.clone(), host.request("/")).await, "Some(5s)");
    assert_eq!(text_of(router.clone(), host.request("/slow")).await, "Some(30s)");
    assert_eq!(text_of(router.clone(), host.request("/free")).await, "None");
    let late = host.request("/");
    host.advance(Duration::from_secs(9));
    assert_eq!(text_of(router.clone(), late).await, "Some(0ns)");
    let mut own =
        Request::post("/upload").body(axum::body::Body::from("a body")).expect("a request");
    own.extensions_mut().insert(host.context());
    assert_eq!(text_of(router, own).await, "Some(5s)", "with a body of the test's own");
    assert_eq!(TestHost::new().request_timeout(None).context().deadline(), None);
}

async fn until_cancelled(
    State(tracked): State<Arc<tokio::sync::Notify>>,
    context: RequestContext,
) -> String {
    let worker = context.clone();
    context.spawn(async move {
        worker.draining().await;
        tracked.notify_one();
    });
    context.cancelled().await;
    format!("cancelled in {}", context.phase())
}

#[tokio::test]
async fn a_handlers_unit_test_controls_its_cancellation_phases_and_tracked_work() {
    let tracked = Arc::new(tokio::sync::Notify::new());
    let router = Router::new().route("/", get(until_cancelled)).with_state(tracked.clone());
    let run = |request| tokio_test::task::spawn(text_of(router.clone(), request));

    // The client of one request is gone.
    let host = TestHost::new();
    let request = host.request("/");
    let context = request.body().context().clone();
    let mut handler = run(request);
    tokio_test::assert_pending!(handler.poll());
    context.cancellation_token().cancel();
    assert_eq!(tokio_test::assert_ready!(handler.poll()), "cancelled in serving");
    assert!(!host.context().is_cancelled(), "the others are not");

    // The deadline of a request expires.
    let mut handler = run(host.request("/"));
    tokio_test::assert_pending!(handler.poll());
    host.advance(Duration::from_millis(4_999));
    tokio_test::assert_pending!(handler.poll());
    host.advance(Duration::from_millis(1));
    assert_eq!(tokio_test::assert_ready!(handler.poll()), "cancelled in serving");

    // The host shuts down.
    let mut handler = run(host.request("/"));
    host.enter(Phase::LameDuck);
    tokio_test::assert_pending!(handler.poll());
    host.context().stopping().await;
    host.enter(Phase::Draining);
    tokio_test::assert_pending!(handler.poll());
    host.tracked_work_done().await;
    tracked.notified().await;
    host.enter(Phase::Cancelling);
    assert_eq!(tokio_test::assert_ready!(handler.poll()), "cancelled in cancelling");
    host.context().root_cancelled().await;
}

#[tokio::test]
async fn the_test_host_drops_tracked_work_that_ignores_the_shutdown() {
    let host = TestHost::new();
    host.context().spawn(std::future::pending());
    host.enter(Phase::CleaningUp);
    host.tracked_work_done().await;
}

#[test]
#[should_panic(expected = "P1: serving cannot follow draining")]
fn a_test_host_does_not_return_to_an_earlier_phase() {
    let host = TestHost::new();
    host.enter(Phase::Draining);
    host.enter(Phase::Serving);
}

#[test]
fn a_request_of_a_test_host_works_for_a_hyper_service() {
    let peer = Address::Tcp(SocketAddr::from(([10, 1, 2, 3], 4)));
    let request = TestHost::new().peer(peer.clone()).request("/orders?id=1");
    assert_eq!(request.body().context().peer(), &peer);
    assert_eq!(request.uri().query(), Some("id=1"));
}
