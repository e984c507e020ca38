//! Requests as users have them.

use crate::failure_of;
use axum::{
    Json, Router,
    extract::{Path, State, WebSocketUpgrade, ws},
    http::{HeaderMap, StatusCode},
    response::sse::{Event, Sse},
    routing::{delete, get, patch, post, put},
};
use lameduck_sim::{Request, client::NAME_FIELD, explore};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

#[test]
fn every_method_headers_and_json_arrive_as_they_were_sent() {
    let echo = |headers: HeaderMap, body: String| async move {
        let key = headers.get("x-key").and_then(|key| key.to_str().ok()).unwrap_or("none");
        assert!(!headers.contains_key(NAME_FIELD), "the name is the simulation's own");
        format!("{key}:{body}")
    };
    let router = move || {
        Router::new()
            .route("/put", put(echo))
            .route("/patch", patch(echo))
            .route("/delete", delete(echo))
            .route("/json", post(|Json(body): Json<Vec<u64>>| async move { Json(body) }))
    };
    let patch = http::Method::PATCH;
    explore(move |world| world.host().serve(router()))
        .request(Request::put("/put", "tea").header("x-key", "1").expect_body("1:tea"))
        .request(Request::new(patch, "/patch").body("milk").expect_body("none:milk"))
        .request(Request::delete("/delete").header("x-key", "2").expect(200).expect_body("2:"))
        .request(Request::post("/json", "").json(&[1, 2]).expect(200).expect_body("[1,2]"))
        .seeds(0..25)
        .run()
        .unwrap();
}

#[derive(Clone, Default)]
struct Orders(Arc<Mutex<BTreeMap<usize, String>>>);

fn orders() -> Router {
    async fn create(
        State(orders): State<Orders>,
        body: String,
    ) -> (StatusCode, [(&'static str, String); 1], Json<serde_json::Value>) {
        let mut orders = orders.0.lock().expect("no handler panics");
        let id = orders.len();
        orders.insert(id, body);
        let json = serde_json::json!({ "order": { "id": id } });
        (StatusCode::CREATED, [("location", format!("/orders/{id}"))], Json(json))
    }
    async fn read(
        State(orders): State<Orders>,
        Path(id): Path<usize>,
    ) -> Result<String, StatusCode> {
        let orders = orders.0.lock().expect("no handler panics");
        orders.get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
    }
    Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(read))
        .with_state(Orders::default())
}

#[test]
fn what_was_posted_is_read_back_by_its_location_and_by_its_json() {
    let by_location = Request::post("/orders", "tea")
        .expect(201)
        .then(Request::get("{location}").expect(200).expect_body("tea"));
    let by_json = Request::post("/orders", "milk")
        .expect(201)
        .then(Request::get("/orders/{/order/id}").expect(200).expect_body("milk"))
        .then(Request::get("/orders/9999").expect(404));
    explore(|world| world.host().serve(orders()))
        .request(by_location)
        .request(by_json)
        .seeds(0..25)
        .run()
        .unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
fn events() -> Router {
    let events = || async {
        let events = futures_util::stream::unfold(0_u64, |n| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(Event::default().data(n.to_string())), n + 1))
        });
        Sse::new(events)
    };
    Router::new().route("/events", get(events))
}

#[test]
fn a_stream_of_events_is_read_until_the_drain_ends_it() {
    explore(|world| world.host().serve(events()))
        .request(Request::events("/events", 3))
        .seeds(0..20)
        .run()
        .unwrap();
    let too_many = Request::events("/events", 1_000_000);
    let failure = failure_of(
        explore(|world| world.host().serve(events())).request(too_many).seeds(0..5).run(),
    );
    assert_eq!(failure.broken.promise, "S6", "{failure}");
}

fn chat(context_ends_it: bool) -> Router {
    let chat = move |context: axum::Extension<lameduck::RequestContext>,
                     upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(move |mut socket| async move {
            loop {
                let message = tokio::select! {
                    biased;
                    () = context.draining(), if context_ends_it => break,
                    message = socket.recv() => message,
                };
                let Some(Ok(ws::Message::Text(text))) = message else { break };
                if socket.send(ws::Message::Text(text)).await.is_err() {
                    break;
                }
            }
            let _ = socket.send(ws::Message::Close(None)).await;
        })
    };
    Router::new().route("/chat", get(chat))
}

#[test]
fn a_websocket_exchanges_its_messages_and_is_closed_by_the_drain() {
    explore(|world| world.host().serve(chat(true)))
        .request(Request::websocket("/chat", ["tea", "milk"]))
        .seeds(0..25)
        .run()
        .unwrap();
    let silent = || Router::new().route("/chat", get(|| async { "no socket" }));
    let failed = explore(move |world| world.host().serve(silent()))
        .request(Request::websocket("/chat", ["tea"]))
        .seeds(0..5)
        .run();
    let failure = failure_of(failed);
    assert!(failure.broken.why.contains("WebSocket /chat never got"), "{failure}");
}

// A chat that must refuse strangers, and upgrades everybody, passed: no status of an upgrade was
// compared with what the client expects.
#[test]
fn an_upgrade_is_the_status_101() {
    let chats = |request| {
        explore(|world| world.host().serve(chat(true))).request(request).seeds(0..10).run()
    };
    let failure = failure_of(chats(Request::websocket("/chat", ["hi"]).expect(403)));
    assert_eq!(failure.broken.promise, "S5", "{failure}");
    assert!(failure.broken.why.starts_with("WebSocket /chat got 101"), "{failure}");
    assert!(failure.broken.why.contains(" instead of 403"), "{failure}");
    chats(Request::websocket("/chat", ["hi"]).expect([101, 503])).unwrap();
    let guarded = || Router::new().route("/chat", get(|| async { StatusCode::FORBIDDEN }));
    let refused = Request::websocket("/chat", ["hi"]).expect(403);
    let then = refused.then(Request::get("/chat").expect(403));
    explore(move |world| world.host().serve(guarded())).request(then).seeds(0..10).run().unwrap();
}

// A pool that closes before the requests that need it end: the usual bug of a shutdown. Without a
// condition on the state it was missed, since a 500 was as good as a 200.
#[test]
fn a_request_that_fails_in_the_drain_only_is_found_without_any_condition() {
    let router = || {
        let handler = |context: axum::Extension<lameduck::RequestContext>| async move {
            if context.phase() > lameduck::lifecycle::Phase::LameDuck {
                return (StatusCode::INTERNAL_SERVER_ERROR, "the pool is closed");
            }
            (StatusCode::OK, "tea")
        };
        Router::new().route("/", get(handler))
    };
    let failure =
        failure_of(explore(move |world| world.host().serve(router())).get("/").seeds(0..100).run());
    assert_eq!(failure.broken.promise, "S5", "{failure}");
    assert!(failure.broken.why.contains("got 500 in draining"), "{failure}");
    assert!(failure.broken.why.contains("the pool is closed"), "{failure}");
}

// The field was sent in addition to `Host: localhost`, and over HTTP/2 it contradicted the
// authority. The host refused such requests, as it must, and no test of virtual hosts was possible.
#[test]
fn a_request_may_be_for_another_host() {
    let shop = |uri: http::Uri, headers: HeaderMap| async move {
        let hosts: Vec<_> = headers.get_all("host").iter().collect();
        match (uri.authority(), &*hosts) {
            (Some(host), []) => host.to_string(),
            (None, [host]) => host.to_str().unwrap_or_default().to_owned(),
            other => format!("{other:?}"),
        }
    };
    let shop_of = |host: &str| Request::get("/").header("Host", host).expect(200).expect_body(host);
    explore(move |world| world.host().serve(Router::new().route("/", get(shop))))
        .request(shop_of("shop.example:81"))
        .request(shop_of("localhost").header("host", "tea.example").expect_body("tea.example"))
        .get("/")
        .expect(200)
        .seeds(0..40)
        .run()
        .unwrap();
}

// Comments counted as events, so that a stream of keep-alives passed. And a stream of more than 16
// KiB never had enough events.
#[test]
fn comments_are_no_events_and_long_streams_are_counted_to_their_end() {
    let stream = |line: &'static str, count: usize| {
        explore(move |world| {
            let lines = move || async move {
                ([("content-type", "text/event-stream")], line.repeat(count))
            };
            world.host().serve(Router::new().route("/", get(lines)))
        })
        .seeds(0..12)
    };
    let failure = failure_of(stream(":\n\n", 50).request(Request::events("/", 1)).run());
    assert_eq!(failure.broken.promise, "S6", "{failure}");
    let long = "data: a line of some length, so that the stream is long\n\n";
    stream(long, 1_000).request(Request::events("/", 1_000)).run().unwrap();
}

// A client whose call or handshake had failed, or whose response had the wrong body, sent the
// request that follows a success. The service was blamed for its response.
#[test]
fn a_request_follows_only_a_response_that_was_wanted() {
    let followed = Arc::<AtomicUsize>::default();
    let router = |followed: Arc<AtomicUsize>| {
        let fields = [("content-type", "application/grpc"), ("grpc-status", "8")];
        Router::new()
            .route("/tea.Tea/Create", post(move || async move { fields }))
            .route("/words", get(|| async { "milk" }))
            .route("/next", get(move || async move { followed.fetch_add(1, Relaxed).to_string() }))
    };
    for first in [
        Request::grpc("/tea.Tea/Create", [""]),
        Request::websocket("/words", ["hello"]),
        Request::get("/words").expect_body("tea"),
    ] {
        let (name, count) = (first.to_string(), Arc::clone(&followed));
        let run = explore(move |world| world.host().serve(router(Arc::clone(&count))))
            .request(first.then(Request::get("/next")))
            .seeds(0..5)
            .run();
        assert!(matches!(failure_of(run).broken.promise, "S5" | "S6"), "{name}");
        assert_eq!(followed.load(Relaxed), 0, "{name}");
    }
}
