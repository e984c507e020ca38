//! State shared by the connections of one worker, in addition to the server's state.

use super::http2_streams::StreamExecutor;
use crate::http::{
    exchange::{http_service::HttpService, service::CalledRequest},
    server::{
        capacity::WorkerCapacity, connection_slot::ConnectionSlot, deadline_timers::DeadlineTimers,
        limits::HTTP2_FRAME_MAX, state::ServerState, worker_metrics::WorkerMetrics,
        worker_runtime::WorkerRuntime, worker_shared::WorkerShared,
    },
};
use crate::lifecycle::Moment;
use hyper::server::conn::{http1, http2};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The number of header fields that hyper allows if it is told none. It then parses a head into an
/// array on its stack. For any other number, the same one told to it included, it fills the array
/// for each request, which costs as much as parsing a short head.
const HYPER_HEADERS_MAX: usize = 100;

/// A worker's service, protocol builders and counters.
pub(crate) struct WorkerContext<S> {
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) service: Arc<S>,
    /// The tasks of this worker's connections and their streams.
    pub(crate) connection_tasks: TaskTracker,
    runtime: WorkerRuntime,
    http1: http1::Builder,
    next_id: AtomicU64,
    pub(crate) capacity: Arc<WorkerCapacity>,
    /// When the next sweep runs, once a stop was requested. Before that the epoch, so that no
    /// connection can move it earlier.
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
        let connection_tasks = TaskTracker::new();
        let mut http1 = http1::Builder::new();
        http1
            // A client may shut its side after its request, and still gets the response.
            .half_close(true)
            // The sweep enforces the header timeout, and a parked connection has no head to wait
            // for. hyper's timer would cost every request.
            .header_read_timeout(None)
            // hyper's own date does not follow the system clock when that is set back.
            .auto_date_header(false)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(limits.header_bytes_max.max(server.caps().http1_buffer.get()));
        if limits.headers_max != HYPER_HEADERS_MAX {
            http1.max_headers(limits.headers_max);
        }
        let metrics = Arc::new(WorkerMetrics::new(&runtime, heartbeat));
        // Each worker gets its own id range, so that no two connections draw the same GOAWAY delay.
        let next_id = AtomicU64::new(server.metrics.register(metrics.clone()) << 40);
        let capacity = server.capacity.register();
        Self {
            shared: Arc::new(WorkerShared { server, metrics, deadlines: DeadlineTimers::new() }),
            service,
            connection_tasks,
            runtime,
            http1,
            next_id,
            capacity,
            sweep_at: AtomicU64::new(Moment::EPOCH.as_nanos()),
            sweep_changed: Notify::new(),
        }
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        &self.shared.server
    }

    /// Returns hyper's builder for HTTP/1. Its connections stay open also in the drain, until a
    /// response announces the close: hyper would add that to a 101, too.
    pub(crate) const fn http1(&self) -> &http1::Builder {
        &self.http1
    }

    /// Returns hyper's builder for one HTTP/2 connection. `called` passes the request of each call
    /// to the executor of its streams.
    pub(crate) fn http2(&self, called: CalledRequest) -> http2::Builder<StreamExecutor> {
        let limits = self.server().config.limits;
        let caps = limits.fixed();
        let window = caps.http2_receive_window.get_u32();
        let streams =
            StreamExecutor::new(self.connection_tasks.clone(), self.runtime.clone(), called);
        let mut http2 = http2::Builder::new(streams);
        // hyper has no timer here. It needs one only for its keep-alive pings and for windows that
        // adapt, which are off.
        http2
            .auto_date_header(false)
            .max_concurrent_streams(limits.http2_streams_max)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .max_frame_size(HTTP2_FRAME_MAX)
            .max_send_buf_size(caps.http2_send_buffer.get())
            .header_table_size(caps.hpack_table.get_u32())
            .max_pending_accept_reset_streams(caps.http2_resets_pending_max.get())
            .max_local_error_reset_streams(caps.http2_error_resets_max.get())
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
        http2
    }

    /// Makes the worker's runtime the current one again, if a handler has changed that.
    pub(crate) fn restore_runtime(&self) {
        self.runtime.restore();
    }

    /// Spawns the task of a connection.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(&self.connection_tasks, connection);
    }

    /// Records that no connection will be added: the worker may end once all tasks are gone. A
    /// closed tracker still accepts tasks; closing it only lets a wait for its emptiness end.
    pub(crate) fn close_trackers(&self) {
        self.connection_tasks.close();
        self.server().tracked_work.close();
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Whether hyper serves more HTTP/1 connections than it may keep while they are idle.
    pub(super) fn over_hyper_limit(&self) -> bool {
        self.server().caps().live_max.is_exceeded_by(self.shared.metrics.http1.get())
    }

    /// Whether more connections keep the state of the fast path than may do so while they are idle.
    pub(super) fn over_fast_path_limit(&self) -> bool {
        self.server().caps().live_max.is_exceeded_by(self.shared.metrics.fast_path.get())
    }

    /// Whether more connections have tasks than may keep them while they are idle.
    pub(crate) fn has_many_tasks(&self) -> bool {
        self.server().caps().tasks_max.is_exceeded_by(self.connection_tasks.len())
    }

    // The sweep.

    /// Sets a connection's deadline: the first sweep from `at` on wakes it.
    pub(super) fn wake_at(&self, slot: &ConnectionSlot, at: Moment) {
        slot.set_due(at);
        self.schedule_sweep(at);
    }

    /// Schedules a sweep at `at`, or earlier.
    pub(crate) fn schedule_sweep(&self, at: Moment) {
        if at < self.sweep_at() {
            self.sweep_at.fetch_min(at.as_nanos(), Relaxed);
            self.sweep_changed.notify_one();
        }
    }

    pub(crate) fn sweep_at(&self) -> Moment {
        Moment::from_nanos(self.sweep_at.load(Relaxed))
    }

    /// Begins a sweep. From now on every deadline that is set moves the next sweep earlier.
    pub(crate) fn begin_sweep(&self) {
        self.sweep_at.store(Moment::NEVER.as_nanos(), Relaxed);
    }

    /// Sets the next sweep to `at`, unless it is set to an earlier moment. On a runtime with
    /// several threads this sweep may miss a deadline that is set meanwhile; the one at `at` finds
    /// it.
    pub(crate) fn end_sweep(&self, at: Moment) {
        self.sweep_at.fetch_min(at.as_nanos(), Relaxed);
    }

    /// Ready when a deadline was set that precedes the next sweep.
    pub(crate) async fn sweep_changed(&self) {
        self.sweep_changed.notified().await;
    }
}

impl<S> fmt::Debug for WorkerContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerContext")
            .field("connections", &self.connection_tasks.len())
            .finish_non_exhaustive()
    }
}
