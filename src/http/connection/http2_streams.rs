//! The streams of HTTP/2 connections. They are tasks that the drain waits for, and each has its own
//! send timeout.
//!
//! hyper passes a body's chunk to h2 as soon as the client's window admits one byte of it, and
//! waits without a timer. A stream whose client receives nothing for too long is dropped here,
//! which makes h2 reset it (`RST_STREAM`). Other streams of the connection continue.

use crate::http::{
    exchange::{request_state::RequestState, service::CalledRequest},
    server::{
        abort::AbortCause,
        client_timeout::ClientTimeout,
        deadline_timers::{DeadlineKey, TimeoutSource},
        limits::CLIENT_CHECK_INTERVAL,
        worker_runtime::WorkerRuntime,
    },
};
use crate::lifecycle::Moment;
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio_util::task::TaskTracker;

/// Spawns the streams of one connection as tasks that the drain waits for. hyper clones it for each
/// stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor(Arc<StreamSpawner>);

#[derive(Debug)]
struct StreamSpawner {
    tasks: TaskTracker,
    runtime: WorkerRuntime,
    called: CalledRequest,
}

impl StreamExecutor {
    pub(super) fn new(tasks: TaskTracker, runtime: WorkerRuntime, called: CalledRequest) -> Self {
        Self(Arc::new(StreamSpawner { tasks, runtime, called }))
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        // hyper has just called the service for this stream. An upgraded stream has no request.
        let StreamSpawner { tasks, runtime, called } = &*self.0;
        let request = called.take();
        runtime.spawn(tasks, Stream { stream, request, timers: None });
    }
}

pin_project! {
    struct Stream<F> {
        #[pin]
        stream: F,
        request: Option<Arc<RequestState>>,
        // Boxed, since most streams end at their first poll, and are moved before it.
        timers: Option<Box<Timers>>,
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(request) = this.request else { return Poll::Pending };
        if this.timers.is_none() && request.progress.unwritten() == 0 && !request.is_call() {
            return Poll::Pending;
        }
        let timers = this.timers.get_or_insert_with(|| Box::new(Timers::new(request)));
        // When this task is ready its future is dropped, and the stream with it.
        if timers.call.as_mut().is_some_and(|call| call.poll(cx).is_ready()) {
            // The call may be over only since the stream was polled above.
            if this.stream.poll(cx).is_pending() {
                request.record_call_reset();
            }
            return Poll::Ready(());
        }
        timers.send.poll(cx)
    }
}

/// The timers of a stream that has not ended at once.
struct Timers {
    send: SendTimer,
    call: Option<CallTimer>,
}

impl Timers {
    fn new(request: &Arc<RequestState>) -> Self {
        let call = request.is_call().then(|| CallTimer::new(request.clone()));
        Self { send: SendTimer::new(request.clone()), call }
    }
}

/// Wakes a gRPC call at its deadline and at the abort. Then its handler or its body ends the call
/// by trailers. Where these would wait for the client, the stream is reset.
struct CallTimer {
    request: Arc<RequestState>,
    timer_key: Option<DeadlineKey>,
}

impl CallTimer {
    const fn new(request: Arc<RequestState>) -> Self {
        Self { request, timer_key: None }
    }

    /// Ready when the call must end.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.timer_key.is_none() {
            let deadlines = &self.request.connection.worker.deadlines;
            let (deadline, waker) = (self.request.call_deadline(), cx.waker().clone());
            self.timer_key = Some(deadlines.wait(deadline, TimeoutSource::Request, waker));
        }
        // After the timer is set: the abort wakes only those who wait.
        if self.request.is_call_over() || self.request.is_aborting() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        if let Some(timer_key) = self.timer_key.take() {
            self.request.connection.worker.deadlines.remove(timer_key);
        }
    }
}

/// Send timeout of one stream. It runs while bytes of the response wait for the client.
struct SendTimer {
    request: Arc<RequestState>,
    /// `None` while no bytes wait.
    progress: Option<Progress>,
    timer_key: Option<DeadlineKey>,
}

/// The state of the stream when its client last made progress.
#[derive(Clone, Copy, Debug)]
struct Progress {
    since: Moment,
    /// Bytes of this stream that h2 has taken and holds no more.
    passed: u64,
    /// Bytes of all streams of the connection that were written by then.
    delivered: u64,
}

impl SendTimer {
    fn new(request: Arc<RequestState>) -> Self {
        Self { request, progress: None, timer_key: None }
    }

    /// Ready when the stream must be reset.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.request.progress.unwritten() == 0 {
            self.progress = None;
            return Poll::Pending;
        }
        if self.request.is_cut_alone() {
            return Poll::Ready(());
        }
        let connection = &self.request.connection;
        let server = &connection.server();
        let now = server.clock.now();
        let current = Progress {
            since: now,
            passed: self.request.progress.passed(),
            delivered: connection.responses.delivered(),
        };
        let progress = self.progress.get_or_insert(current);
        if current.passed != progress.passed {
            *progress = current;
        } else if connection.io.is_blocked()
            && current.delivered - progress.delivered
                < server.caps().stream_turn_bytes.get_u64() * connection.in_flight()
        {
            // The stream may not have had its turn. The whole connection waits for the client, and
            // has its own timer.
            progress.since = now;
        }
        let since = progress.since;
        let until = server.gives_up(since, ClientTimeout::Send);
        if now >= until {
            server.note_client_timeout(
                ClientTimeout::Send,
                &connection.peer,
                Some(&self.request.method_and_path().1),
            );
            if server.stall_cause(since, ClientTimeout::Send, now) == AbortCause::Shutdown {
                self.request.record_cut_by_drain();
            }
            return Poll::Ready(());
        }
        // A timer that is set for an earlier moment suffices: the check is repeated then.
        if self.timer_key.is_none_or(|timer_key| timer_key.deadline <= now) {
            self.remove();
            let at = until.min(now + CLIENT_CHECK_INTERVAL);
            self.timer_key = Some(self.request.connection.worker.deadlines.wait(
                at,
                TimeoutSource::Request,
                cx.waker().clone(),
            ));
        }
        Poll::Pending
    }

    fn remove(&mut self) {
        if let Some(timer_key) = self.timer_key.take() {
            self.request.connection.worker.deadlines.remove(timer_key);
        }
    }
}

impl Drop for SendTimer {
    fn drop(&mut self) {
        self.remove();
    }
}
