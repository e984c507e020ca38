//! A rolling restart of the servers of a balancer: three real processes, restarted in turn under
//! constant load.
//!
//! ```text
//! clients ──▶ HAProxy or nginx ──▶ 127.0.0.2   each in turn: SIGTERM, wait for its exit,
//!             never reloaded   ├─▶ 127.0.0.3   a successor on the same two ports,
//!                              └─▶ 127.0.0.4   wait until it is ready and gets requests again
//! ```
//!
//! Every server has its own loopback address, so that no client connection takes the port that a
//! successor needs. A client's request counts as failed unless a handler responded to it,
//! completely and correctly. The client never retries.

use crate::{
    balancer::{Backend, Balancer, Kind},
    client::{Habit, Load, RequestSpec, exchange, run},
    process::Service,
    wire::Wire,
};
use rustix::process::Signal;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::JoinSet, time::sleep};

/// Settings of a rollout.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The balancer in front of the servers.
    pub kind: Kind,
    /// Binary of the service.
    pub binary: PathBuf,
    /// Lame duck delay of the service, in the syntax of its flag.
    pub lame_duck: String,
    /// Clients that keep their connection.
    pub keeping: usize,
    /// Clients that open a new connection for every request.
    pub per_request: usize,
    /// Minimum number of restarts.
    pub restarts_min: u64,
    /// Minimum number of responses.
    pub answers_min: u64,
    /// Longest time of the load, even if the minimums are not reached.
    pub span_max: Duration,
}

/// Progress of a rollout.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Restarts until now.
    pub restarts: u64,
    /// Requests with a response until now.
    pub answered: u64,
    /// Requests failed until now.
    pub failed: u64,
}

/// Result of a rollout.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Number of restarts.
    pub restarts: u64,
    /// Requests that a handler responded to.
    pub answered: u64,
    /// All other requests.
    pub failed: u64,
    /// Duration of the load.
    pub span: Duration,
    /// Details of the first failures, from clients, from the balancer, and from servers that did
    /// not exit with 0.
    pub stories: Vec<String>,
    /// Servers whose exit was not clean.
    pub unclean_exits: u64,
}

impl Outcome {
    /// Returns responses per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let answered = self.answered as f64;
        answered / self.span.as_secs_f64()
    }

    /// Returns whether nothing failed.
    #[must_use]
    pub const fn is_perfect(&self) -> bool {
        self.failed == 0 && self.unclean_exits == 0
    }
}

const SERVERS: [&str; 3] = ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.4:0"];
/// Longer than lame duck delay, drain and the later phases ever take here.
const EXIT_MAX: Duration = Duration::from_secs(30);
/// Longest wait until a balancer sends requests to a restarted server.
const SEEN_MAX: Duration = Duration::from_secs(20);
/// Duration of the load before the first restart.
const WARM_UP: Duration = Duration::from_millis(300);

/// Runs the rollout, and reports the progress after every restart.
///
/// # Errors
/// If a process cannot be started or ended, or the balancer never sends a request to a restarted
/// one.
pub async fn roll(plan: &Plan, mut progress: impl FnMut(Progress)) -> io::Result<Outcome> {
    let mut servers = Vec::new();
    for address in SERVERS {
        servers.push(start(plan, address, address).await?);
    }
    let backends: Vec<Backend> = servers
        .iter()
        .map(|server| Backend { main: server.main, internal: server.internal })
        .collect();
    let balancer = Balancer::start(plan.kind, &backends)?;
    await_answer(balancer.address).await?;

    let load = Arc::new(Load::of(Wire::direct(balancer.address), asks()));
    let mut clients = JoinSet::new();
    for (habit, count) in [(Habit::KeepAlive, plan.keeping), (Habit::PerRequest, plan.per_request)]
    {
        for _ in 0..count {
            clients.spawn(run(load.clone(), habit));
        }
    }
    let begin = Instant::now();
    sleep(WARM_UP).await;

    let (mut restarts, mut unclean, mut stories) = (0, 0, Vec::new());
    while (restarts < plan.restarts_min || load.totals.answered() < plan.answers_min)
        && begin.elapsed() < plan.span_max
    {
        let place = usize::try_from(restarts).unwrap_or(0) % servers.len();
        let old = servers.remove(place);
        let (main, internal) = (old.main, old.internal);
        if let Some(story) = end(old).await? {
            unclean += 1;
            stories.push(story);
        }
        let new = start(plan, &main.to_string(), &internal.to_string()).await?;
        servers.insert(place, new);
        await_requests(internal).await?;
        restarts += 1;
        progress(Progress {
            restarts,
            answered: load.totals.answered(),
            failed: load.totals.failed(),
        });
    }

    load.over.store(true, Relaxed);
    while clients.join_next().await.is_some() {}
    let span = begin.elapsed();
    stories.extend(load.totals.stories().lines().map(str::to_owned));
    if load.totals.failed() > 0 {
        stories.extend(balancer.said().lines().rev().take(20).map(str::to_owned));
    }
    Ok(Outcome {
        restarts,
        answered: load.totals.answered(),
        failed: load.totals.failed(),
        span,
        stories,
        unclean_exits: unclean,
    })
}

/// Mostly quick requests, a third of them POST. A few slow ones still run when a listener closes.
fn asks() -> Vec<RequestSpec> {
    let quick = || RequestSpec::get("/").expecting(b"hello world");
    let slow = |ms: u32| RequestSpec::get(&format!("/slow?ms={ms}")).expecting(b"slow done\n");
    let post = |length: usize| {
        let body: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        RequestSpec::post("/echo", body.clone()).expecting(&body)
    };
    let mut asks = Vec::new();
    for n in 0..8 {
        asks.extend([quick(), post(100 + 100 * n), quick(), quick(), post(10), quick()]);
    }
    asks.extend([slow(20), slow(300)]);
    asks
}

async fn start(plan: &Plan, main: &str, internal: &str) -> io::Result<Service> {
    let mut command = Command::new(&plan.binary);
    command.args(["--drill", "--workers", "1", "--lame-duck", &plan.lame_duck, "--addr", main]);
    let internal = internal.to_owned();
    blocking(move || Service::launch_probed_on(&mut command, &internal)).await
}

/// Requests a stop, as a platform does, and waits for the exit. Returns a description if it was not
/// clean.
async fn end(mut service: Service) -> io::Result<Option<String>> {
    service.signal(Signal::TERM)?;
    blocking(move || {
        let status = service.wait(EXIT_MAX)?;
        if status.success() {
            return Ok(None);
        }
        let told: Vec<String> =
            service.log().iter().rev().take(8).map(ToString::to_string).collect();
        Ok(Some(format!("{status}; it said, last first: {}", told.join("\n"))))
    })
    .await
}

/// Waits until a request through the balancer succeeds.
async fn await_answer(balancer: SocketAddr) -> io::Result<()> {
    await_that("the balancer answers", || async {
        matches!(get(balancer, "/").await, Some((200, _)))
    })
    .await
}

/// Waits until a restarted server gets requests, so the balancer has noticed it.
async fn await_requests(internal: SocketAddr) -> io::Result<()> {
    await_that("the balancer sends requests to the server that is back", || async {
        let Some((200, status)) = get(internal, "/status").await else { return false };
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
        status["requests"]["finished"].as_u64().unwrap_or(0) > 0
    })
    .await
}

async fn await_that<Fut: Future<Output = bool>>(
    what: &str,
    mut look: impl FnMut() -> Fut,
) -> io::Result<()> {
    let end = Instant::now() + SEEN_MAX;
    while Instant::now() < end {
        if look().await {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain until {what}")))
}

async fn get(server: SocketAddr, path: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = exchange(&mut stream, &request).await.ok()?;
    Some((answer.status, answer.bytes))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
