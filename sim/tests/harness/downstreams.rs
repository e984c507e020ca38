//! Services that depend on others, whose faults are drawn.

use crate::failure_of;
use axum::{Router, extract::State, http::StatusCode, routing::get, routing::post};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck::{Hook, RequestContext};
use lameduck_sim::{Connector, Downstream, ServerConnection, TestWorld, Trial, explore};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};

type Payments = Client<Connector, Empty<Bytes>>;

async fn pay(State(payments): State<Payments>) -> (StatusCode, String) {
    let paid = async {
        let response = payments.get("http://payments/pay".parse().ok()?).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some(String::from_utf8_lossy(&body).into_owned())
    };
    match paid.await {
        Some(paid) => (StatusCode::OK, paid),
        None => (StatusCode::BAD_GATEWAY, "no payment".to_owned()),
    }
}

fn bank() -> Router {
    Router::new().route("/pay", get(|| async { "paid" }))
}

fn shop(world: TestWorld) -> lameduck::Host<lameduck::TowerService<Router>> {
    let payments = world.downstream("payments", bank());
    let client = Client::builder(TokioExecutor::new()).build(payments.connector());
    world.host().serve(Router::new().route("/orders", get(pay)).with_state(client))
}

// Nothing with a client could be simulated at all: a service that called another one panicked with
// "IO is disabled".
#[test]
fn a_service_calls_another_over_http_whatever_faults_that_one_has() {
    let passed = explore(shop).get("/orders").expect(200).seeds(0..60).run().unwrap();
    assert_eq!(passed.scenarios, 60);
    // The same over HTTP/2, as gRPC does.
    explore(|world: TestWorld| {
        let payments = world.downstream("payments", bank());
        let http2 =
            Client::builder(TokioExecutor::new()).http2_only(true).build(payments.connector());
        world.host().serve(Router::new().route("/orders", get(pay)).with_state(http2))
    })
    .get("/orders")
    .expect(200)
    .seeds(0..30)
    .run()
    .unwrap();
}

/// A queue over TCP: a client sends lines, and the queue sends `ok` for each that it has stored.
async fn queue(connection: ServerConnection, stored: Arc<AtomicUsize>) {
    let mut lines = BufStream::new(connection);
    let mut line = String::new();
    while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        stored.fetch_add(1, Relaxed);
        let sent = async {
            lines.write_all(b"ok\n").await?;
            lines.flush().await
        };
        if sent.await.is_err() {
            return;
        }
        line.clear();
    }
}

async fn publish(queue: &Downstream) -> io::Result<()> {
    let mut connection = queue.connect().await?;
    connection.write_all(b"order\n").await?;
    let mut answer = [0; 3];
    connection.read_exact(&mut answer).await?;
    Ok(())
}

fn publisher(world: TestWorld, acknowledges_first: bool) -> Trial<lameduck::TowerService<Router>> {
    let stored = Arc::new(AtomicUsize::new(0));
    let queue = {
        let stored = stored.clone();
        world.tcp_downstream("queue", move |connection| queue(connection, stored.clone()))
    };
    let order = move |context: axum::Extension<RequestContext>| async move {
        if acknowledges_first {
            context.spawn(async move { drop(publish(&queue).await) });
            return StatusCode::ACCEPTED;
        }
        match publish(&queue).await {
            Ok(()) => StatusCode::ACCEPTED,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    };
    let router = Router::new().route("/orders", post(order));
    Trial::of(world.host().serve(router)).at_exit(move |received| {
        let (accepted, stored) = (received.succeeded("/orders"), stored.load(Relaxed));
        if accepted <= stored {
            Ok(())
        } else {
            Err(format!("{accepted} accepted, {stored} stored"))
        }
    })
}

#[test]
fn what_is_acknowledged_before_the_queue_has_it_is_lost_by_a_fault_of_the_queue() {
    explore(|world| publisher(world, false)).post("/orders", "tea").seeds(0..60).run().unwrap();
    let failed = explore(|world| publisher(world, true)).post("/orders", "tea").seeds(0..200).run();
    let failure = failure_of(failed);
    assert!(matches!(failure.broken.promise, "S1" | "S4"), "{failure}");
    let text = failure.to_string();
    assert!(text.contains("the downstream queue "), "the fault in words: {text}");
    assert!(text.contains(" s  queue     "), "the fault in the log: {text}");
}

/// A stop hook that flushes to a queue, with or without a time limit.
#[expect(
    clippy::disallowed_methods,
    reason = "a service that times out does so by the world's time"
)]
fn flusher(world: TestWorld, has_limit: bool) -> lameduck::Host<lameduck::TowerService<Router>> {
    let stored = Arc::new(AtomicUsize::new(0));
    let queue = world.tcp_downstream("queue", move |connection| queue(connection, stored.clone()));
    let flush = Hook::on_stop("flush", move || async move {
        if has_limit {
            tokio::time::timeout(Duration::from_secs(2), publish(&queue)).await??;
        } else {
            publish(&queue).await?;
        }
        Ok::<_, io::Error>(())
    });
    world.host().hook(flush).serve(Router::new().route("/", get(|| async { "tea" })))
}

#[test]
fn a_hook_that_waits_for_ever_for_a_dead_downstream_is_found_and_one_that_gives_up_is_not() {
    explore(|world| flusher(world, true)).get("/").seeds(0..100).run().unwrap();
    let failed = explore(|world| flusher(world, false)).get("/").seeds(0..200).run();
    let failure = failure_of(failed);
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    assert!(failure.broken.why.starts_with("the hook flush ended with GivenUp"), "{failure}");
}

#[test]
fn a_downstream_without_faults_never_fails() {
    explore(|world: TestWorld| {
        let stored = Arc::new(AtomicUsize::new(0));
        let queue =
            world.tcp_downstream("queue", move |connection| queue(connection, stored.clone()));
        let queue = queue.reliable();
        let order = move || async move {
            publish(&queue).await.expect("a reliable queue never fails");
        };
        world.host().serve(Router::new().route("/orders", post(order)))
    })
    .post("/orders", "tea")
    .seeds(0..60)
    .run()
    .unwrap();
}

/// A stop at 8 s, and a request before and after a downstream becomes slow.
const SLOW: &str = r#"{"about":"slow","seed":1,"latency_ms":[1,1],"syn_filter":"Available",
    "clock_skew_ppm":0,"plan":{"start":60000,"lame_duck":0,"drain":10000,"cancel":3000,
    "cleanup":5000,"internal_close":1000},"request_timeout_ms":5000,"workers":1,"hooks":[],
    "stops":[{"at_ms":8000,"by":"Sigterm"}],"clients":[
    {"at_ms":100,"request_kind":{"User":{"method":"GET","target":"/"}},"traffic":{"Once":"Prompt"}},
    {"at_ms":4000,"request_kind":{"User":{"method":"GET","target":"/"}},"traffic":{"Once":"Prompt"}}
    ],"faults":[{"Downstream":{"downstream":0,"at_ms":1500,"for_ms":60000,"how":"Slow"}}],
    "probe_every_ms":1000}"#;

// On a kept connection the wait for a response was slow, and not the response. So requests were as
// quick as before, and yet everything that the service did after them was excused.
#[test]
fn a_slow_downstream_is_slow_on_a_kept_connection() {
    let times: Arc<std::sync::Mutex<Vec<Duration>>> = Arc::default();
    let shop = {
        let times = Arc::clone(&times);
        move |world: TestWorld| {
            let times = Arc::clone(&times);
            let payments = world.downstream("payments", bank());
            let client = Client::builder(TokioExecutor::new()).build(payments.connector());
            let order = move |client: State<Payments>| async move {
                let begins = tokio::time::Instant::now();
                let paid = pay(client).await;
                times.lock().expect("no handler panics").push(begins.elapsed());
                paid
            };
            world.host().serve(Router::new().route("/", get(order)).with_state(client))
        }
    };
    explore(shop).replay(SLOW).run().unwrap();
    let times = times.lock().unwrap();
    assert!(
        matches!(&times[..], [quick, slow] if *quick < Duration::from_millis(100)
        && *slow >= Duration::from_millis(700)),
        "{times:?}"
    );
}

// A stop hook that made five calls, each of which a slow downstream delayed by 1.4 s, was blamed:
// its budget is 5 s. One that waits for a downstream that is dead is still found.
#[test]
fn a_hook_that_a_slow_downstream_delays_is_not_blamed() {
    let flushes = |world: TestWorld| {
        let stored = Arc::new(AtomicUsize::new(0));
        let queue =
            world.tcp_downstream("queue", move |connection| queue(connection, stored.clone()));
        let flush = Hook::on_stop("flush", move || async move {
            for _ in 0..5 {
                publish(&queue).await?;
            }
            Ok::<_, io::Error>(())
        });
        world.host().hook(flush).serve(Router::new().route("/", get(|| async { "tea" })))
    };
    explore(flushes).replay(SLOW).run().unwrap();
    let failed = explore(flushes).replay(SLOW.replace("Slow", "Stalls")).run();
    assert!(failure_of(failed).broken.why.starts_with("the hook flush ended with GivenUp"));
}

// A slow response anywhere in a run excused every stop hook that was given up.
#[test]
fn a_hook_that_nothing_slow_delays_is_blamed() {
    let hangs = |world: TestWorld| {
        let stored = Arc::new(AtomicUsize::new(0));
        let queue =
            world.tcp_downstream("queue", move |connection| queue(connection, stored.clone()));
        let order = move || async move { drop(publish(&queue).await) };
        let flush = Hook::on_stop("flush", std::future::pending::<io::Result<()>>);
        world.host().hook(flush).serve(Router::new().route("/", get(order)))
    };
    let over = SLOW.replace(r#""for_ms":60000"#, r#""for_ms":4000"#);
    let failure = failure_of(explore(hangs).replay(over).run());
    assert!(failure.to_string().contains("is slow to respond"), "{failure}");
    assert!(failure.broken.why.starts_with("the hook flush ended with GivenUp"), "{failure}");
}
