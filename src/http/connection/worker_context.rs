//! What the connections of one worker share beside their side.

use super::{http2_streams::StreamExecutor, hyper_timer::HyperTimer};
use crate::http::{
    exchange::service::{CalledRequest, HttpService},
    server::{
        connection_slot::ConnectionSlot,
        deadline_timers::DeadlineTimers,
        limits::{
            HPACK_TABLE, HTTP1_BUFFER, HTTP2_ERROR_RESETS_MAX, HTTP2_FRAME_MAX,
            HTTP2_RECEIVE_WINDOW, HTTP2_RESETS_PENDING_MAX, HTTP2_SEND_BUFFER, LIVE_MAX, TASKS_MAX,
        },
        state::ServerState,
        worker_metrics::WorkerMetrics,
        worker_runtime::WorkerRuntime,
        worker_shared::WorkerShared,
    },
};
use crate::lifecycle::{Moment, Phase};
use hyper::server::conn::{http1, http2};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// A worker's service and protocol builders, and what it counts.
pub(crate) struct WorkerContext<S> {
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) service: Arc<S>,
    /// The tasks of this worker's connections and their streams.
    pub(crate) tasks: TaskTracker,
    runtime: WorkerRuntime,
    /// Grows while the worker runs (P3).
    pub(crate) heartbeat: Arc<AtomicU64>,
    http1: http1::Builder,
    http1_last: http1::Builder,
    next_id: AtomicU64,
    full: AtomicBool,
    capacity_freed: Notify,
    /// What the sweep is set for, once a stop was asked for; the epoch before, when nobody can be sooner.
    sweep_at: AtomicU64,
    sweep_changed: Notify,
}

impl<S: HttpService> WorkerContext<S> {
    pub(crate) fn new(
        server: Arc<ServerState>,
        service: Arc<S>,
        heartbeat: Arc<AtomicU64>,
        runtime: WorkerRuntime,
    ) -> Self {
        let limits = server.config.limits;
        let tasks = TaskTracker::new();
        let mut http1 = http1::Builder::new();
        http1
            // A client may shut its side once it has asked, and still be answered.
            .half_close(true)
            // The sweep bounds the head, and a parked connection has none; hyper's timer costs every request.
            .header_read_timeout(None)
            // hyper's own date stays as it is when the system's clock is set back.
            .auto_date_header(false)
            .max_headers(limits.headers_max)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(limits.header_bytes_max.max(HTTP1_BUFFER));
        let mut http1_last = http1.clone();
        http1_last.keep_alive(false);
        let metrics = Arc::new(WorkerMetrics::new(runtime.threads));
        // Far enough from the others', so that no two connections have the same chance.
        let next_id = AtomicU64::new(server.metrics.register(metrics.clone()) << 40);
        Self {
            shared: Arc::new(WorkerShared { server, metrics, deadlines: DeadlineTimers::new() }),
            service,
            tasks,
            runtime,
            heartbeat,
            http1,
            http1_last,
            next_id,
            full: AtomicBool::new(false),
            capacity_freed: Notify::new(),
            sweep_at: AtomicU64::new(Moment::EPOCH.as_nanos()),
            sweep_changed: Notify::new(),
        }
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        &self.shared.server
    }

    /// In the drain one answer is the last, whatever the client asks.
    pub(crate) fn http1(&self) -> &http1::Builder {
        if self.server().phase() >= Phase::Draining { &self.http1_last } else { &self.http1 }
    }

    /// hyper's builder for one connection, whose streams know what it knows.
    pub(crate) fn http2(&self, called: CalledRequest) -> http2::Builder<StreamExecutor> {
        let limits = self.server().config.limits;
        let mut http2 = http2::Builder::new(StreamExecutor {
            tasks: self.tasks.clone(),
            runtime: self.runtime.clone(),
            called,
        });
        http2
            .timer(HyperTimer(self.server().clock.clone()))
            .auto_date_header(false)
            .max_concurrent_streams(limits.http2_streams_max)
            .initial_stream_window_size(HTTP2_RECEIVE_WINDOW)
            .initial_connection_window_size(HTTP2_RECEIVE_WINDOW)
            .max_frame_size(HTTP2_FRAME_MAX)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .header_table_size(HPACK_TABLE)
            .max_pending_accept_reset_streams(HTTP2_RESETS_PENDING_MAX)
            .max_local_error_reset_streams(HTTP2_ERROR_RESETS_MAX)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
        http2
    }

    /// Spawns the task of a connection.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(&self.tasks, connection);
    }

    /// No connection will be added: the worker may leave once all tasks are gone. Closing a tracker refuses nothing; it lets a
    /// wait for its emptiness end.
    pub(crate) fn close(&self) {
        self.tasks.close();
        self.server().tasks.close();
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Whether more HTTP/1 connections are with hyper than should stay there idle.
    pub(crate) fn over_hyper_limit(&self) -> bool {
        self.shared.metrics.http1.get() > LIVE_MAX
    }

    /// Whether more connections keep what it takes to answer plain requests than should while they are idle.
    pub(crate) fn over_fast_path_limit(&self) -> bool {
        self.shared.metrics.fast_path.get() > LIVE_MAX
    }

    /// Whether more connections have tasks than should while they are idle.
    pub(crate) fn has_many_tasks(&self) -> bool {
        self.tasks.len() > TASKS_MAX
    }

    // The sweep.

    /// Asks the sweep to wake a connection at its first round from `at` on.
    pub(crate) fn wake_at(&self, slot: &ConnectionSlot, at: Moment) {
        slot.set_due(at);
        self.schedule_sweep(at);
    }

    /// Asks for a round of the sweep at `at`, or sooner.
    pub(crate) fn schedule_sweep(&self, at: Moment) {
        if at < self.sweep_at() {
            self.sweep_at.fetch_min(at.as_nanos(), Relaxed);
            self.sweep_changed.notify_one();
        }
    }

    pub(crate) fn sweep_at(&self) -> Moment {
        Moment::from_nanos(self.sweep_at.load(Relaxed))
    }

    /// From here on whoever is due is sooner than the sweep.
    pub(crate) fn begin_sweep(&self) {
        self.sweep_at.store(Moment::NEVER.as_nanos(), Relaxed);
    }

    /// The next sweep is at `at`, or sooner. On a runtime with several threads a connection may have missed that: it is found `at`.
    pub(crate) fn end_sweep(&self, at: Moment) {
        self.sweep_at.fetch_min(at.as_nanos(), Relaxed);
    }

    /// Ready when somebody is due before the next sweep.
    pub(crate) async fn sweep_changed(&self) {
        self.sweep_changed.notified().await;
    }

    // The limit on connections.

    pub(crate) fn wait_for_capacity(&self) {
        self.full.store(true, Relaxed);
    }

    pub(crate) fn on_connection_closed(&self) {
        if self.full.swap(false, Relaxed) {
            self.capacity_freed.notify_one();
        }
    }

    pub(crate) async fn capacity_freed(&self) {
        self.capacity_freed.notified().await;
    }
}

impl<S> fmt::Debug for WorkerContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerContext")
            .field("connections", &self.tasks.len())
            .finish_non_exhaustive()
    }
}
