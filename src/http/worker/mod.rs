//! A worker accepts connections, wakes those whose deadlines have expired, and ends when the last
//! one is gone and no tracked work is left.

mod command;
mod event_loop;
mod eviction;
mod handshake_wait;
mod listeners;

pub(crate) use self::command::WorkerCommand;
use self::event_loop::Worker;
pub(crate) use self::handshake_wait::SealBarrier;
use crate::http::{
    connection::worker_context::WorkerContext,
    exchange::http_service::HttpService,
    server::{state::ServerState, worker_runtime::WorkerRuntime},
};
use crate::runtime::{Listener, WrapTask};
use std::sync::{Arc, atomic::AtomicU64};
use tokio::sync::{mpsc, oneshot};

/// Runs the worker, then keeps its runtime alive until the driver closes the command channel.
/// Untracked tasks on it, such as a shared client's connection, may still be needed by other
/// handlers or stop hooks (P10). `all_closed` is dropped when the worker is done. `wrap` wraps the
/// worker's task.
pub(crate) async fn run_until_released<L, S>(
    parts: WorkerParts<S>,
    listeners: Vec<L>,
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
    seal_barrier: Arc<SealBarrier>,
    all_closed: oneshot::Sender<()>,
    wrap: WrapTask,
) where
    L: Listener,
    S: HttpService,
{
    let runtime = WorkerRuntime::of_tasks();
    let WorkerParts { server, service, heartbeat } = parts;
    let context = Arc::new(WorkerContext::new(server, service, heartbeat, runtime.clone()));
    let working = async move {
        run(context, listeners, &mut commands, seal_barrier).await;
        drop(all_closed);
        while commands.recv().await.is_some() {}
    };
    runtime.run(wrap(Box::pin(working))).await;
}

/// The parts of a worker's context that exist before its runtime is known.
pub(crate) struct WorkerParts<S> {
    pub(crate) server: Arc<ServerState>,
    pub(crate) service: Arc<S>,
    pub(crate) heartbeat: Arc<AtomicU64>,
}

/// Runs until the listeners are closed and the last connection and all tracked work are gone.
pub(crate) async fn run<L, S>(
    context: Arc<WorkerContext<S>>,
    listeners: Vec<L>,
    commands: &mut mpsc::UnboundedReceiver<WorkerCommand>,
    seal_barrier: Arc<SealBarrier>,
) where
    L: Listener,
    S: HttpService,
{
    let server = context.server();
    // Concurrent with everything else, so that no wait of the worker delays a deadline.
    let deadlines = context.shared.deadlines.watch(&*server.clock, &server.tokens);
    tokio::select! {
        biased;
        () = deadlines => {}
        () = Worker::new(context.clone(), listeners, seal_barrier).run(commands) => {}
    }
}
