//! A stand-in for a host in unit tests of handlers.

use crate::http::{
    connection::worker_context::WorkerContext,
    exchange::{
        connection_state::{ConnectionState, Protocol},
        context::RequestContext,
        request_body::Body,
        request_end::CancelCause,
        request_state::RequestState,
    },
    server::{
        announcement::Announcement,
        connection_slot::ConnectionSlot,
        idle_policy::EvictionGrace,
        limits::Limits,
        state::{CloseRaces, ServerConfig, ServerState},
        worker_runtime::WorkerRuntime,
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Address, Clock, Seed, Sleep},
};
use http::{Method, Response, Uri};
use hyper::service::service_fn;
use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Creates [`RequestContext`]s for unit tests of handlers. The test controls the phase, the time
/// and the cancellation; there is no server, no socket and no real time.
///
/// A new host is in [`Phase::Serving`], and its requests have a deadline of 5 s, the default of a
/// host.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use lameduck::{RequestContext, TestHost, lifecycle::Phase};
/// use std::time::Duration;
/// use tower::ServiceExt;
///
/// async fn report(Extension(context): Extension<RequestContext>) -> String {
///     format!(
///         "{} in {} with {:?} left",
///         context.app_version(),
///         context.phase(),
///         context.remaining()
///     )
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let host = TestHost::new().app_version("1.2.3");
/// let router = Router::new().route("/report", get(report));
///
/// // `request` creates a GET. Into any other request insert `host.context()` as an extension.
/// let request = host.request("/report");
/// host.enter(Phase::LameDuck);
/// host.advance(Duration::from_secs(2));
/// let response = router.oneshot(request).await.unwrap();
/// let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
/// assert_eq!(body, "1.2.3 in lame_duck with Some(3s) left");
///
/// let context = host.context();
/// host.advance(Duration::from_secs(5));
/// assert!(context.is_cancelled(), "at its deadline");
/// # });
/// ```
#[derive(Debug)]
pub struct TestHost {
    clock: Arc<ManualClock>,
    server: Arc<ServerState>,
    peer: Address,
    local: Arc<Address>,
    requests: Mutex<Vec<Weak<RequestState>>>,
}

impl TestHost {
    /// Creates a host in [`Phase::Serving`].
    #[must_use]
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let loopback = |port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
        let server = serving_server(&clock, Arc::from(""), Some(Duration::from_secs(5)));
        Self {
            clock,
            server,
            peer: loopback(50_000),
            local: Arc::new(loopback(8080)),
            requests: Mutex::default(),
        }
    }

    /// Sets the version of the app. Default: empty. Call it before a context is created.
    #[must_use]
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.server =
            serving_server(&self.clock, version.into().into(), self.server.config.request_timeout);
        self
    }

    /// Sets the deadline of every request; `None` for none. Default: 5 s. Call it before a context
    /// is created.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.server = serving_server(&self.clock, self.server.config.app_version.clone(), timeout);
        self
    }

    /// Sets the client address of the contexts that are created from now on.
    #[must_use]
    pub fn peer(mut self, peer: Address) -> Self {
        self.peer = peer;
        self
    }

    /// Creates the context of a request whose head is complete now.
    #[must_use]
    pub fn context(&self) -> RequestContext {
        RequestContext(self.begin(&Method::GET, &Uri::from_static("/")))
    }

    /// Creates a `GET` without a body. It carries its context like every hosted request: in its
    /// extensions, for tower services, and in its [`Body`], for hyper services.
    ///
    /// # Panics
    /// If `uri` is not a valid URI.
    #[must_use]
    pub fn request(&self, uri: &str) -> http::Request<Body> {
        let uri: Uri = uri.parse().unwrap_or_else(|error| panic!("{uri:?} is no URI: {error}"));
        let state = self.begin(&Method::GET, &uri);
        let context = RequestContext(state.clone());
        let mut request = http::Request::new(Body::arrived(None, state));
        *request.uri_mut() = uri;
        request.extensions_mut().insert(context);
        request
    }

    /// Enters a later phase, with its effects on contexts. From [`Phase::LameDuck`] on `stopping()`
    /// is ready, from [`Phase::Draining`] on `draining()`, from [`Phase::Cancelling`] on
    /// `cancelled()`. [`Phase::CleaningUp`] drops tracked work.
    ///
    /// # Panics
    /// If `phase` is earlier than the current one.
    pub fn enter(&self, phase: Phase) {
        let current = self.server.phase();
        assert!(phase >= current, "P1: {phase} cannot follow {current}");
        self.server.publish(phase, self.clock.now());
        if phase >= Phase::Cancelling {
            self.server.cancel_root();
        }
        if phase >= Phase::CleaningUp {
            self.server.abort();
        }
    }

    /// Advances the clock. Contexts whose deadlines have expired are cancelled.
    pub fn advance(&self, span: Duration) {
        let now = self.clock.advance(span);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|request| request.strong_count() > 0);
        for request in
            requests.iter().filter_map(Weak::upgrade).filter(|request| request.deadline() <= now)
        {
            request.cancel(CancelCause::Deadline);
        }
    }

    /// Ready when no work is left that handlers spawned on their contexts.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn tracked_work_done(&self) {
        self.server.tracked_work.close();
        self.server.tracked_work.wait().await;
        self.server.tracked_work.reopen();
    }

    fn begin(&self, method: &Method, uri: &Uri) -> Arc<RequestState> {
        let now = self.clock.now();
        let service = service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let worker = WorkerContext::new(
            self.server.clone(),
            Arc::new(service),
            Arc::default(),
            WorkerRuntime::none(),
        );
        let (peer, local) = (self.peer.clone(), self.local.clone());
        let slot = ConnectionSlot::new(now, peer, local, Announcement::OPENED_BEFORE);
        let connection =
            Arc::new(ConnectionState::new(Protocol::Http1, worker.shared.clone(), &slot));
        let request = RequestState::begun(&connection, now, method, uri);
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&request));
        request
    }
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

fn serving_server(
    clock: &Arc<ManualClock>,
    app_version: Arc<str>,
    request_timeout: Option<Duration>,
) -> Arc<ServerState> {
    let config = ServerConfig {
        app_version,
        request_timeout,
        streams: Duration::ZERO,
        lame_duck: Duration::ZERO,
        limits: Limits::default(),
        close_races: CloseRaces::Ignored,
        eviction_grace: EvictionGrace::MAIN,
        seed: Seed(0),
        outcome_observer: None,
        process: None,
    };
    let server = ServerState::new(clock.clone(), config);
    server.publish(Phase::Serving, clock.now());
    Arc::new(server)
}

/// A clock that only the test advances.
#[derive(Debug)]
struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    const fn new() -> Self {
        Self { nanos: AtomicU64::new(0) }
    }

    fn advance(&self, span: Duration) -> Moment {
        let later = self.now() + span;
        self.nanos.store(later.as_nanos(), Relaxed);
        later
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.nanos.load(Relaxed))
    }

    /// Never ready: contexts are cancelled by [`TestHost::advance`], and no server waits here.
    fn sleep_until(&self, _: Moment) -> Pin<Box<dyn Sleep>> {
        Box::pin(pending())
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.now().since_epoch()
    }
}
