//! Counts the simulation's own tasks, so that those of a service can be distinguished on a runtime
//! that they share.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

thread_local! {
    static OURS: Cell<usize> = const { Cell::new(0) };
}

/// Returns the number of the simulation's own tasks on this thread.
pub(crate) fn ours() -> usize {
    OURS.get()
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
