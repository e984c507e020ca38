//! Shared by both worlds: a runtime with paused time, and waiting for jobs.
#![expect(clippy::disallowed_methods, reason = "a world's limit is in its own time")]

use super::Overrun;
use crate::{explore::enter_thread, trace::Trace};
use std::{
    collections::BTreeMap,
    future::Future,
    panic,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

/// Creates a runtime on this thread with a paused time. The time advances only when all tasks wait.
/// Threads that it starts are noted in `trace`.
///
/// # Panics
/// If the runtime cannot be built. Without I/O it needs no system resource.
pub(super) fn paused_runtime(trace: &Trace) -> Runtime {
    let trace = trace.clone();
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_start(move || {
            trace.note_thread();
            enter_thread(trace.clone());
        })
        .build()
        .expect("a runtime without I/O asks nothing of the system")
}

/// Advances the runtime's time to a whole millisecond of its timer, so that rounding is the same in
/// every run.
pub(super) async fn settle_time() -> Instant {
    tokio::time::sleep(Duration::from_millis(1)).await;
    Instant::now()
}

/// Waits until all `awaited` jobs have returned. Resumes a panic of any job.
pub(super) async fn await_jobs(
    mut awaited: JoinSet<()>,
    mut background: JoinSet<()>,
    mut names: BTreeMap<Id, String>,
    epoch: Instant,
    limit: Duration,
) -> Result<Duration, Overrun> {
    let deadline = tokio::time::sleep_until(epoch + limit);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            biased;
            ended = awaited.join_next_with_id() => match ended {
                None => return Ok(epoch.elapsed()),
                Some(Ok((id, ()))) => drop(names.remove(&id)),
                Some(Err(lost)) => go_on_panicking(lost),
            },
            Some(ended) = background.join_next() => {
                if let Err(lost) = ended {
                    go_on_panicking(lost);
                }
            }
            () = &mut deadline => {
                return Err(Overrun { limit, hosts: names.into_values().collect() });
            }
        }
    }
}

fn go_on_panicking(lost: JoinError) {
    if let Ok(payload) = lost.try_into_panic() {
        panic::resume_unwind(payload);
    }
}

/// Polls a future only when it was woken. A `LocalSet` polls its root each time that any of its
/// tasks was woken.
pub(super) struct WhenWoken<F> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
    waker: Waker,
}

/// Whether the future was woken, and the task that polls it.
struct Woken {
    is_woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl<F: Future> WhenWoken<F> {
    pub(super) fn new(future: F) -> Self {
        let woken = Arc::new(Woken { is_woken: AtomicBool::new(true), task: Mutex::default() });
        Self { future: Box::pin(future), waker: Waker::from(Arc::clone(&woken)), woken }
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        {
            let mut task = this.woken.task.lock().unwrap_or_else(PoisonError::into_inner);
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        if !this.woken.is_woken.swap(false, Relaxed) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Relaxed);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}
