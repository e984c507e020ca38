//! Well-behaved services: none of them raises a false alarm.
//!
//! CI runs a few seeds of each. By hand: `just well-behaved 0..500`.

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State, WebSocketUpgrade, ws},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Redirect, Response,
        sse::{Event, Sse},
    },
    routing::{get, post, put},
};
use futures_util::stream;
use lameduck::{BackgroundTask, Hook, ReadinessCheck, RequestContext, RouteTimeout, TaskContext};
use lameduck_sim::{Downstream, Request, TestWorld, Trial, Trials, explore};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Service = lameduck::TowerService<Router>;

/// Seeds in CI.
const SEEDS: std::ops::Range<u64> = 0..12;

fn survives(trials: Trials<Service>) {
    let run = trials.seeds(SEEDS).run();
    assert!(run.is_ok(), "{run:?}");
}

fn serve(router: impl Fn() -> Router + Send + Sync + 'static) -> Trials<Service> {
    explore(move |world: TestWorld| world.host().serve(router()))
}

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[test]
fn every_status() {
    let status = |Path(status): Path<u16>| async move {
        StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT)
    };
    let mut trials = serve(move || Router::new().route("/{status}", get(status)));
    for status in [200, 202, 204, 206, 301, 304, 400, 401, 404, 408, 409, 413, 418, 425, 429, 431] {
        trials = trials.get(format!("/{status}")).expect(status);
    }
    for status in [500, 501, 502, 503, 504, 599] {
        trials = trials.get(format!("/{status}")).expect(status);
    }
    survives(trials);
}

#[test]
fn rejections_of_extractors() {
    let router = || {
        let json = |_: Json<BTreeMap<String, u64>>| async { "tea" };
        let query = |_: Query<BTreeMap<String, String>>| async { "tea" };
        Router::new()
            .route("/json", post(json))
            .route("/query/{n}", get(|_: Path<u64>| async {}))
            .route("/query", get(query))
    };
    let typed = Request::post("/json", "{").header("content-type", "application/json").expect(400);
    survives(
        serve(router)
            .request(typed)
            .post("/json", "{}")
            .expect(415)
            .request(Request::post("/json", "").json(&["a"]).expect(422))
            .get("/query/x")
            .expect(400)
            .request(Request::delete("/query").expect(405)),
    );
}

#[test]
fn slow_handlers_within_their_deadline() {
    let slow = |Path(ms): Path<u64>| async move { sleep(ms).await };
    survives(
        serve(move || Router::new().route("/{ms}", get(slow))).get("/1").get("/900").get("/4000"),
    );
}

#[test]
fn a_handler_that_times_out_now_and_then() {
    let router = || {
        let count = Arc::new(AtomicUsize::new(0));
        let odd = move |State(count): State<Arc<AtomicUsize>>| async move {
            if count.fetch_add(1, Relaxed) % 2 == 1 {
                sleep(60_000).await;
            }
        };
        Router::new().route("/", get(odd)).with_state(count)
    };
    survives(serve(router).get("/"));
}

fn large() -> Trials<Service> {
    let router = || {
        let upload = |body: bytes::Bytes| async move { body.len().to_string() };
        Router::new()
            .route("/large", get(|| async { "x".repeat(300_000) }))
            .route("/upload", put(upload))
            .layer(DefaultBodyLimit::max(100_000))
    };
    serve(router)
        .get("/large")
        .request(Request::put("/upload", "x".repeat(60_000)).expect_body("60000"))
        .request(Request::put("/upload", "x".repeat(200_000)).expect(413))
}

#[test]
fn large_responses_and_uploads() {
    survives(large());
}

// A client left without a reset. The response waited for it until the end of the drain, and the
// service was blamed.
#[test]
fn a_client_that_leaves_a_large_response() {
    large().seeds(354..355).run().unwrap();
}

// A GOAWAY is sent after the bytes that were written before it. A large response delayed it, and
// the host was blamed: in one seed of 300.
#[test]
fn a_goaway_after_a_large_response_is_not_late() {
    let router = || Router::new().route("/large", get(|| async { "x".repeat(300_000) }));
    let scenario = r#"{"about":"drawn from seed 184","seed":184,"latency_ms":[20,40],
        "syn_filter":"Available","clock_skew_ppm":0,"plan":{"start":60000,"lame_duck":5000,
        "drain":10000,"cancel":3000,"cleanup":5000,"internal_close":1000},"request_timeout_ms":5000,
        "workers":1,"hooks":[],"stops":[{"at_ms":800,"by":"Handle"}],"clients":[{"at_ms":5700,
        "request_kind":{"User":{"method":"GET","target":"/large"}},"traffic":{"Http2":{"requests":1,
        "every_ms":0}}}],"faults":[],"probe_every_ms":1000}"#;
    survives(serve(router).replay(scenario));
}

#[test]
fn an_upload_that_the_handler_does_not_read() {
    let router = || Router::new().route("/", post(|| async { "no" }));
    survives(serve(router).post("/", "x".repeat(90_000)));
}

fn chunks(count: u64, ms: u64) -> Body {
    Body::from_stream(stream::unfold(0, move |n| async move {
        sleep(ms).await;
        (n < count).then(|| (Ok::<_, Infallible>(format!("{n}\n")), n + 1))
    }))
}

#[test]
fn a_stream_that_ends() {
    let router = || Router::new().route("/", get(|| async { chunks(20, 50) }));
    survives(serve(router).request(Request::get("/").expect(200).expect_body("19\n")));
}

#[test]
fn server_sent_events() {
    let router = || {
        let events = || async {
            Sse::new(stream::unfold(0_u64, |n| async move {
                sleep(30).await;
                Some((Ok::<_, Infallible>(Event::default().data(n.to_string())), n + 1))
            }))
        };
        Router::new().route("/", get(events))
    };
    survives(serve(router).request(Request::events("/", 2)));
}

async fn echo(context: RequestContext, mut socket: ws::WebSocket) {
    loop {
        let message = tokio::select! {
            biased;
            () = context.draining() => break,
            message = socket.recv() => message,
        };
        let Some(Ok(message)) = message else { return };
        if matches!(message, ws::Message::Text(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
    let _ = socket.send(ws::Message::Close(None)).await;
}

#[test]
fn websockets() {
    let router = || {
        let upgrade = |context: axum::Extension<RequestContext>, upgrade: WebSocketUpgrade| {
            std::future::ready(upgrade.on_upgrade(move |socket| echo(context.0, socket)))
        };
        Router::new().route("/", get(upgrade))
    };
    survives(serve(router).request(Request::websocket("/", ["a", "b", "c"])));
}

#[test]
fn tracked_work_after_the_response() {
    let work = |context: axum::Extension<RequestContext>| async move {
        context.spawn(sleep(2_000));
        StatusCode::ACCEPTED
    };
    survives(serve(move || Router::new().route("/", post(work))).post("/", ""));
}

#[test]
fn work_that_ends_when_it_is_cancelled() {
    let work = |context: axum::Extension<RequestContext>| async move {
        let token = context.cancellation_token();
        context.spawn(async move { token.cancelled().await });
    };
    survives(serve(move || Router::new().route("/", post(work))).post("/", ""));
}

#[test]
fn a_long_poll_that_ends_with_the_drain() {
    let poll = |context: axum::Extension<RequestContext>| async move {
        tokio::select! {
            biased;
            () = context.draining() => StatusCode::NO_CONTENT,
            () = sleep(20_000) => StatusCode::OK,
        }
    };
    let router = move || Router::new().route("/", get(poll)).layer(RouteTimeout::none());
    survives(serve(router).get("/"));
}

#[test]
fn a_background_task_hooks_and_a_check() {
    survives(
        explore(|world: TestWorld| {
            let task = BackgroundTask::new("sweeper", |context: TaskContext| async move {
                context.draining().await;
                Ok::<_, io::Error>(())
            });
            let pool = Hook::on_stop("pool", || async {
                sleep(200).await;
                Ok::<_, io::Error>(())
            });
            world
                .host()
                .hook(pool)
                .background_task(task)
                .readiness_check(ReadinessCheck::new("pool", || async { Ok::<_, io::Error>(()) }))
                .serve(Router::new().route("/", get(|| async { "tea" })))
        })
        .get("/"),
    );
}

// SIGHUP reloads such a service and does not stop it. It was drawn as the only stop, so the run
// never ended, and the service was blamed.
#[test]
fn a_service_that_reloads_on_sighup() {
    let reloads = |world: TestWorld| {
        let reload = || async { Ok::<_, io::Error>(()) };
        world.host().on_reload(reload).serve(Router::new().route("/", get(|| async { "tea" })))
    };
    explore(reloads).get("/").seeds(0..40).run().unwrap();
}

#[test]
fn redirects_and_what_follows() {
    let router = || {
        Router::new()
            .route("/old", get(|| async { Redirect::permanent("/new") }))
            .route("/new", get(|| async { "tea" }))
    };
    let followed = Request::get("{location}").expect(200).expect_body("tea");
    survives(serve(router).request(Request::get("/old").expect(308).then(followed)));
}

#[derive(Clone, Default)]
struct Orders(Arc<Mutex<BTreeMap<usize, String>>>);

async fn create(State(orders): State<Orders>, body: String) -> Response {
    sleep(40).await;
    let mut orders = orders.0.lock().expect("no handler panics");
    let id = orders.len();
    orders.insert(id, body);
    (StatusCode::CREATED, [("location", format!("/orders/{id}"))]).into_response()
}

async fn read(State(orders): State<Orders>, Path(id): Path<usize>) -> Result<String, StatusCode> {
    let orders = orders.0.lock().expect("no handler panics");
    orders.get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
}

#[test]
fn orders_that_are_stored_before_they_are_acknowledged() {
    survives(
        explore(|world: TestWorld| {
            let orders = Orders::default();
            let router = Router::new()
                .route("/orders", post(create))
                .route("/orders/{id}", get(read))
                .with_state(orders.clone());
            Trial::of(world.host().serve(router)).at_exit(move |received| {
                let stored = orders.0.lock().expect("no handler panics").len();
                let created = received.succeeded("/orders");
                if created <= stored { Ok(()) } else { Err(format!("{created} of {stored}")) }
            })
        })
        .request(
            Request::post("/orders", "tea")
                .expect(201)
                .then(Request::get("{location}").expect(200).expect_body("tea")),
        ),
    );
}

#[test]
fn a_service_that_sheds_load() {
    let router = || {
        let count = Arc::new(AtomicUsize::new(0));
        let shed = |State(count): State<Arc<AtomicUsize>>| async move {
            if count.fetch_add(1, Relaxed) % 3 == 2 {
                return StatusCode::TOO_MANY_REQUESTS;
            }
            StatusCode::OK
        };
        Router::new().route("/", get(shed)).with_state(count)
    };
    survives(serve(router).get("/").expect([200, 429]));
}

#[test]
fn a_service_that_refuses_in_the_drain() {
    let refuse = |context: axum::Extension<RequestContext>| async move {
        if context.phase() >= lameduck::lifecycle::Phase::Draining {
            return (StatusCode::SERVICE_UNAVAILABLE, "ask another one");
        }
        (StatusCode::OK, "tea")
    };
    survives(serve(move || Router::new().route("/", get(refuse))).get("/").expect([200, 503]));
}

#[test]
fn headers_cookies_and_authorization() {
    let guard = |headers: HeaderMap| async move {
        let ok = headers.get("authorization").is_some_and(|value| value == "Bearer tea");
        (if ok { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, [("set-cookie", "a=b")])
    };
    survives(
        serve(move || Router::new().route("/", get(guard)))
            .get("/")
            .expect(401)
            .get("/")
            .header("authorization", "Bearer tea")
            .expect(200),
    );
}

#[test]
fn blocking_work_that_the_handler_waits_for() {
    #[expect(clippy::disallowed_methods, reason = "as users' handlers do")]
    async fn hash() -> String {
        let hashed = tokio::task::spawn_blocking(|| (0..1_000_u64).sum::<u64>()).await;
        hashed.map_or_else(|_| String::new(), |sum| sum.to_string())
    }
    survives(serve(|| Router::new().route("/", get(hash))).get("/").expect(200));
}

#[test]
fn a_router_with_a_fallback_and_head_requests() {
    let router =
        || Router::new().route("/", get(|| async { "tea" })).fallback(|| async { "a page" });
    survives(serve(router).get("/any/page").request(Request::new(http::Method::HEAD, "/")));
}

/// Tries three times, and gives up.
#[expect(clippy::disallowed_methods, reason = "a service that times out does so by its world")]
async fn fetch(payments: &Downstream) -> StatusCode {
    for attempt in 0..3 {
        sleep(100 * attempt).await;
        let fetched = tokio::time::timeout(Duration::from_millis(800), async {
            let mut text = String::new();
            payments.connect().await?.read_to_string(&mut text).await?;
            Ok::<_, io::Error>(text)
        });
        if fetched.await.is_ok_and(|fetched| fetched.is_ok_and(|text| text == "paid")) {
            return StatusCode::OK;
        }
    }
    StatusCode::BAD_GATEWAY
}

#[test]
fn retries_of_what_a_downstream_refuses() {
    survives(
        explore(|world: TestWorld| {
            let payments = world.tcp_downstream("payments", |mut client| async move {
                let _ = client.write_all(b"paid").await;
            });
            let pay = move || async move { fetch(&payments).await };
            world.host().serve(Router::new().route("/", get(pay)))
        })
        .get("/")
        .expect(200),
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "as users' services do")]
fn a_channel_that_tells_streams_to_end() {
    survives(
        explore(|world: TestWorld| {
            let (ends, ended) = tokio::sync::watch::channel(false);
            let task = BackgroundTask::new("ends", move |context: TaskContext| async move {
                context.draining().await;
                ends.send_replace(true);
                Ok::<_, io::Error>(())
            });
            let lines = move || async move {
                Body::from_stream(stream::unfold(ended, |mut ended| async move {
                    let is_over = tokio::select! {
                        biased;
                        _ = ended.wait_for(|ended| *ended) => true,
                        () = sleep(70) => false,
                    };
                    (!is_over).then_some((Ok::<_, Infallible>("line\n"), ended))
                }))
            };
            world.host().background_task(task).serve(Router::new().route("/", get(lines)))
        })
        .request(Request::get("/").expect(200)),
    );
}

// A stop by the service itself, at its start or by a request: the host was blamed (P4).
#[test]
fn a_service_that_stops_itself() {
    let ends = |after_ms: u64| {
        explore(move |world: TestWorld| {
            let builder = world.host();
            let handle = builder.shutdown_handle();
            let task = BackgroundTask::new("once", move |_: TaskContext| async move {
                sleep(after_ms).await;
                handle.stop();
                Ok::<_, io::Error>(())
            });
            builder.background_task(task).serve(Router::new().route("/", get(|| async { "tea" })))
        })
        .get("/")
    };
    survives(ends(100));
    survives(ends(3_000));
    survives(
        explore(|world: TestWorld| {
            let builder = world.host();
            let handle = builder.shutdown_handle();
            let stop = move || async move { handle.stop() };
            builder.serve(Router::new().route("/", get(|| async {})).route("/stop", post(stop)))
        })
        .get("/")
        .post("/stop", ""),
    );
}

// A start hook ran at the stop. The host waits 50 ms for its result, and was blamed for that (P7).
#[test]
fn a_stop_during_a_start_hook() {
    let connects = || {
        Hook::on_start("pool", || async {
            sleep(300).await;
            Ok::<_, io::Error>(())
        })
    };
    let host = move |world: TestWorld| {
        world.host().hook(connects()).serve(Router::new().route("/", get(|| async { "tea" })))
    };
    explore(host).get("/").seeds(0..40).run().unwrap();
}
