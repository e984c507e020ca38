//! Counts the simulation's own tasks, so that those of a service can be distinguished on a runtime
//! that they share.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

thread_local! {
    static OURS: Cell<usize> = const { Cell::new(0) };
    static OF_DOWNSTREAMS: Cell<usize> = const { Cell::new(0) };
}

/// Returns the number of the simulation's own tasks on this thread.
pub(crate) fn ours() -> usize {
    OURS.get()
}

/// Returns the number of tasks on this thread that downstreams have spawned. Some of them may have
/// ended: nothing shows it.
pub(crate) fn of_downstreams() -> usize {
    OF_DOWNSTREAMS.get()
}

/// Resets the number of tasks that downstreams have spawned, when their world ends.
#[derive(Debug)]
pub(crate) struct Downstreams;

impl Drop for Downstreams {
    fn drop(&mut self) {
        OF_DOWNSTREAMS.set(0);
    }
}

/// Calls code of a downstream. The tasks that it spawns are none of the service. Those that they
/// spawn in turn are not known.
pub(crate) fn of_downstream<T>(run: impl FnOnce() -> T) -> T {
    let others = || alive().saturating_sub(ours() + of_downstreams());
    let before = others();
    let ran = run();
    OF_DOWNSTREAMS.set(OF_DOWNSTREAMS.get() + others().saturating_sub(before));
    ran
}

/// Polls a future of a downstream. The tasks that it spawns are none of the service.
pub(crate) async fn spawning<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| of_downstream(|| future.as_mut().poll(cx))).await
}

/// Returns the number of tasks that are alive on the current runtime.
pub(crate) fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Counts `task` as one of the simulation's own, until it is dropped. It is to be spawned at once.
pub(crate) fn counted<F: Future>(task: F) -> Counted<F> {
    OURS.set(OURS.get() + 1);
    Counted { task: Box::pin(task) }
}

/// A task of the simulation.
#[derive(Debug)]
pub(crate) struct Counted<F> {
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.task.as_mut().poll(cx)
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        OURS.set(OURS.get().saturating_sub(1));
    }
}
