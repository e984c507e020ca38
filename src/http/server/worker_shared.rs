//! State shared by the connections of one worker.

use super::{deadline_timers::DeadlineTimers, state::ServerState, worker_metrics::WorkerMetrics};
use std::sync::Arc;

/// Shared by all connections of a worker, whatever their service type.
#[derive(Debug)]
pub(crate) struct WorkerShared {
    pub(crate) server: Arc<ServerState>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) deadlines: DeadlineTimers,
}
