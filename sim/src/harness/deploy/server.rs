//! Servers that are not lameduck: a function that gets a listener and a stop signal.

use super::{
    listener::{SimListener, StopSignal},
    losses::Losses,
    platform::Deploy,
    play::{for_each_seed, play},
    process::{Probe, Process, Program, Version},
    proved::Proved,
    scenario::DeployScenario,
};
use crate::{
    explore::set_current_trace,
    harness::{downstream::Serving, judge::hint, seeds},
    scenario::Request,
    trace::Trace,
};
use std::{fmt, future::Future, ops::Range, panic::resume_unwind, sync::Arc};
use tokio::sync::mpsc::unbounded_channel;

/// Counts what the deploys of any server lose. `serve` is called for each process, and runs it
/// until it returns: the process then exits. If it returns before the process was ready, it is
/// called again after 1 s, then 2 s, 4 s and so on.
///
/// ```
/// # use axum::{Router, routing::get};
/// use lameduck_sim::{Deploy, explore_server};
///
/// let losses = explore_server(|listener, stop| async move {
///     let router = Router::new().route("/", get(|| async { "tea" }));
///     let _ = axum::serve(listener, router).with_graceful_shutdown(stop).await;
/// })
/// .get("/")
/// .deploy(Deploy::rolling(2))
/// .plays(0..4)
/// .run();
/// assert!(losses.requests > 0, "{losses}");
/// ```
///
/// The listener is one of axum, and has [`accept`](SimListener::accept) for other servers. Time is
/// simulated; threads and real sockets are not. Only what clients see is counted.
///
/// # The result is statistical
/// A server may use randomness that cannot be seeded. The `select!`s of axum are not biased, for
/// example. A play of the same seed draws the same clients at the same times, and may end
/// otherwise. So the result is how many of the plays lose a request, and no play can be replayed
/// byte by byte.
pub fn explore_server<F, Serving>(serve: F) -> ServerTrials
where
    F: Fn(SimListener, StopSignal) -> Serving + Send + Sync + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    let program: Program = Arc::new(move |process: Process| {
        let serve = Arc::clone(&serve);
        Box::pin(async move {
            let stop = StopSignal::new(process.stop.clone());
            // Closes the port at the exit, even if a task still holds the listener.
            let Ok((listener, _closing)) = SimListener::open(&process).await else { return };
            serve(listener, stop).await;
        })
    });
    ServerTrials {
        version: Version { program, probe: Probe::Connect },
        requests: Vec::new(),
        deploy: Deploy::rolling(3),
        seeds: 0..100,
    }
}

/// Settings of the deploys of any server. [`run`](Self::run) performs them.
#[must_use = "nothing is explored until it is run"]
pub struct ServerTrials {
    version: Version,
    requests: Vec<Request>,
    deploy: Deploy,
    seeds: Range<u64>,
}

impl fmt::Debug for ServerTrials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTrials")
            .field("requests", &self.requests)
            .field("deploy", &self.deploy)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl ServerTrials {
    /// Adds a GET request that clients send: a path and query.
    ///
    /// # Panics
    /// Panics if `target` does not begin with a slash or is not a path and query.
    #[track_caller]
    pub fn get(self, target: impl Into<String>) -> Self {
        self.request(Request::get(target))
    }

    /// Adds a POST request that clients send.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    pub fn post(self, target: impl Into<String>, body: impl Into<String>) -> Self {
        self.request(Request::post(target, body))
    }

    /// Adds a request of any kind that clients send, except WebSocket, server-sent events and gRPC:
    /// [`run`](Self::run) panics for these.
    pub fn request(mut self, request: Request) -> Self {
        self.requests.push(request);
        self
    }

    /// Sets the deploy. Default [`Deploy::rolling`] with 3 replicas.
    pub fn deploy(mut self, deploy: Deploy) -> Self {
        self.deploy = deploy;
        self
    }

    /// Sets the path on the server's own port that the platform probes. A status below 400 is a
    /// success. By default the platform only connects.
    pub fn probe(mut self, path: impl Into<String>) -> Self {
        self.version.probe = Probe::Path(path.into());
        self
    }

    /// Sets the seeds. Each is one deploy, and there must be at least one. Default `0..100`. The
    /// variables `LAMEDUCK_SEED` and `LAMEDUCK_SEEDS` have precedence.
    pub fn plays(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Performs all deploys, on all cores, and counts what their clients lose.
    ///
    /// # Panics
    /// Panics if the run would prove nothing: there is no request, no seed, or a request that never
    /// succeeded, alone or after another one. Then the message has the first panic of a server, if
    /// one panicked. Panics if the seeds in the environment are invalid.
    #[track_caller]
    pub fn run(self) -> Losses {
        let seeds = checked(&self.requests, self.seeds.clone());
        let played = for_each_seed(
            seeds,
            |seed| {
                let scenario = DeployScenario::draw(seed, &self.requests);
                let versions = (self.version.clone(), self.version.clone());
                let (_, servers) = unbounded_channel();
                let trace = Trace::new();
                set_current_trace(trace.clone());
                play(&scenario, self.deploy, versions, &trace, servers, Serving::default())
            },
            |_| false,
        );
        let mut losses = Losses::default();
        let (mut proved, mut panicked) = (Proved::default(), None);
        for (_, outcome) in played {
            let outcome = outcome.unwrap_or_else(|payload| resume_unwind(payload));
            panicked = panicked.or_else(|| first_panic(&outcome.trace));
            losses.add(&Losses::of(&outcome));
            proved.add(Proved::of(&outcome));
        }
        losses.checked(&proved, &self.requests, panicked)
    }
}

/// Describes the first panic of a play.
fn first_panic(trace: &Trace) -> Option<String> {
    let panics = trace.events("panic");
    let text = |name| panics.first()?.text(name);
    let message = text("message")?;
    let at = text("at").unwrap_or_default();
    Some(format!("the server panicked at {at}: {message}{}", hint(message)))
}

/// Returns the seeds to play.
#[track_caller]
pub(super) fn checked(requests: &[Request], seeds: Range<u64>) -> Range<u64> {
    assert!(
        !requests.is_empty(),
        "the service gets no requests: add them with .get(\"/path\") or .post(…)"
    );
    let whole = requests.iter().flat_map(Request::steps).all(Request::has_one_response);
    assert!(
        whole,
        "the clients of a deploy send no WebSocket, read no server-sent events and make no gRPC \
         calls"
    );
    let seeds = seeds::from_environment(seeds);
    assert!(!seeds.is_empty(), "the range {seeds:?} is empty: there is nothing to run");
    seeds
}
