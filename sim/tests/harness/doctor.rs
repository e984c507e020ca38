//! The determinism doctor: runs that cannot be replayed, and what the simulation cannot simulate.

use crate::failure_of;
use axum::{Router, http::StatusCode, routing::get};
use lameduck_sim::{Failure, TestWorld, Trials, explore};
use std::{
    collections::hash_map::RandomState,
    future::ready,
    hash::BuildHasher,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

type Service = lameduck::TowerService<Router>;

/// Of these, three are played twice. Two random runs of one seed can be equal, once in a hundred
/// times in some tests below, so one pair would not prove enough.
const SEEDS: Range<u64> = 0..60;

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn serve<H, T>(handler: H) -> Trials<Service>
where
    H: axum::handler::Handler<T, ()> + Sync,
    T: 'static,
{
    let router = move || Router::new().route("/", get(handler.clone()));
    explore(move |world: TestWorld| world.host().serve(router())).get("/").seeds(0..12)
}

// The message called the scenario shrunk, and its replay a reproduction. It is as it was drawn, and
// a single run shows no difference.
#[track_caller]
fn diverges(trials: Trials<Service>, cause: &str) {
    let failure = failure_of(trials.seeds(SEEDS).run());
    assert_eq!(failure.broken.promise, "S8", "{failure}");
    let why = &failure.broken.why;
    assert!(why.starts_with("two runs of one seed part at "), "{why}");
    assert!(why.contains(": the first has \""), "the first differing record: {why}");
    let text = failure.to_string();
    assert!(!text.contains(", shrunk") && !text.contains("to reproduce it"), "{text}");
    assert!(text.contains("to see one of the runs, replace the seeds by"), "{text}");
    assert!(why.contains(cause), "{why}");
}

#[test]
fn a_service_that_reads_the_real_clock_cannot_be_replayed() {
    #[expect(clippy::disallowed_methods, reason = "this is the cause")]
    let until_the_next_second = || async {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        sleep(u64::from(1_000_000 - now.subsec_micros()) % 900).await;
    };
    diverges(serve(until_the_next_second), "the real clock (std::time instead of tokio::time)");
}

#[test]
fn a_service_that_depends_on_the_order_of_a_hash_set_cannot_be_replayed() {
    #[expect(clippy::disallowed_types, reason = "this is the cause")]
    let first = || async {
        let shards: std::collections::HashSet<u64> = (0..100).collect();
        sleep(shards.into_iter().next().unwrap_or_default()).await;
    };
    diverges(serve(first), "the order of a HashMap or HashSet");
}

#[test]
fn a_select_without_biased_cannot_be_replayed() {
    let any = || async {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(tokio::select! {
                () = ready(()) => true,
                () = ready(()) => false,
            });
        }
        let hash =
            statuses.iter().fold(0_u16, |hash, is_first| (hash * 2 + u16::from(*is_first)) % 97);
        StatusCode::from_u16(200 + hash).unwrap_or_default()
    };
    diverges(serve(any).expect(200..=299), "a `select!` without `biased`");
}

#[test]
fn a_service_with_a_thread_of_its_own_cannot_be_replayed() {
    #[expect(clippy::disallowed_methods, reason = "this is the cause")]
    let thread = || async {
        let took_us = Arc::new(AtomicU64::new(0));
        let thread_took_us = Arc::clone(&took_us);
        drop(std::thread::spawn(move || {
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(3));
            thread_took_us.store(begin.elapsed().as_micros() as u64, SeqCst);
        }));
        while took_us.load(SeqCst) == 0 {
            sleep(1).await;
        }
        sleep(took_us.load(SeqCst) % 900).await;
    };
    diverges(serve(thread).request_timeout(None), "a thread of the service");
}

#[test]
fn random_contents_are_no_difference_and_an_intended_one_can_be_accepted() {
    let random = || async { RandomState::new().hash_one(0).to_string() };
    serve(random).run().unwrap();
    let jitter = || async { sleep(RandomState::new().hash_one(0) % 900).await };
    assert_eq!(failure_of(serve(jitter).seeds(SEEDS).run()).broken.promise, "S8");
    serve(jitter).may_diverge("the handler has a random delay").run().unwrap();
}

#[test]
fn a_failure_that_is_not_seen_again_says_so() {
    let has_failed = Arc::new(AtomicBool::new(false));
    let once = move || {
        let status = if has_failed.swap(true, SeqCst) {
            StatusCode::OK
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        ready(status)
    };
    let text = failure_of(serve(once).run()).to_string();
    assert!(text.starts_with("S5 "), "{text}");
    assert!(text.contains("note: a second run of this seed did not break it"), "{text}");
}

#[test]
fn blocking_work_that_is_waited_for_is_no_difference() {
    #[expect(clippy::disallowed_methods, reason = "as users' handlers do")]
    let read = || async { tokio::task::spawn_blocking(|| "tea").await.unwrap_or_default() };
    serve(read).run().unwrap();
}

/// Returns the sentence about a panic of tokio that only the simulation causes.
fn explained(failure: &Failure) -> &str {
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    &failure.broken.why
}

#[test]
fn blocking_a_thread_of_the_runtime_is_named_and_explained() {
    let in_place = || async { tokio::task::block_in_place(|| "tea") };
    let failure = failure_of(serve(in_place).run());
    assert!(explained(&failure).contains("use spawn_blocking instead of block_in_place"));
    let nested = || async {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ready("tea"))
    };
    let failure = failure_of(serve(nested).run());
    assert!(explained(&failure).contains("so use its asynchronous form"), "{failure}");
}

// A client that opens its connections in tasks contained the panic, and each request was a 502.
#[test]
fn a_real_socket_in_a_task_of_a_client_is_named_too() {
    #[expect(clippy::disallowed_methods, reason = "as clients do")]
    let connect = || async {
        let connecting = tokio::spawn(tokio::net::TcpStream::connect("127.0.0.1:1"));
        if connecting.await.is_ok() { StatusCode::OK } else { StatusCode::BAD_GATEWAY }
    };
    let failure = failure_of(serve(connect).expect([200, 502]).run());
    assert!(explained(&failure).contains("the simulation has no real sockets"), "{failure}");
}

// Simulated time does not wait for a thread, so the request times out at once.
#[test]
fn a_handler_that_waits_for_a_thread_is_explained() {
    let is_over = Arc::new(AtomicBool::new(false));
    let thread_is_over = Arc::clone(&is_over);
    #[expect(clippy::disallowed_methods, reason = "this is the cause")]
    let thread = move || async move {
        let (sender, done) = tokio::sync::oneshot::channel();
        drop(std::thread::spawn(move || {
            while !thread_is_over.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            sender.send("tea")
        }));
        done.await.unwrap_or_default()
    };
    let failed = serve(thread).seeds(0..4).run();
    is_over.store(true, SeqCst);
    let failure = failure_of(failed);
    assert_eq!(failure.broken.promise, "S6", "{failure}");
    assert!(failure.broken.why.contains("waits for a thread of its own"), "{failure}");
}
