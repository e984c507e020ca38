//! The streams of HTTP/2 connections: tasks that the drain sees, each with a send timeout of its own.
//!
//! hyper hands a body's chunk to h2 as soon as the client's window takes a byte of it, and waits
//! without a timer. A stream whose client takes nothing for too long is dropped here, which makes h2
//! reset it (`RST_STREAM`). Others on the connection go on.

use crate::http::{
    exchange::{request_state::RequestState, service::CalledRequest},
    server::{
        abort::AbortCause,
        client_timeout::ClientTimeout,
        deadline_timers::{DeadlineKey, TimeoutSource},
        limits::{GONE_CHECK, PASSED_OVER},
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

/// Spawns the streams of one connection where the drain sees them.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor {
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: WorkerRuntime,
    pub(crate) called: CalledRequest,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        // hyper has just called the service for it. An upgraded stream has no request.
        let request = self.called.take();
        self.runtime.spawn(&self.tasks, Stream { stream, timer: request.map(SendTimer::new) });
    }
}

pin_project! {
    struct Stream<F> {
        #[pin]
        stream: F,
        timer: Option<SendTimer>,
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match this.timer {
            // Once the task is done its future is dropped, and the stream with it.
            Some(timer) => timer.poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Runs while bytes of the response wait for the client.
struct SendTimer {
    request: Arc<RequestState>,
    /// `None` while nothing waits.
    progress: Option<Progress>,
    place: Option<DeadlineKey>,
}

/// How far the stream was when its client last took something.
#[derive(Clone, Copy, Debug)]
struct Progress {
    since: Moment,
    /// Bytes of this stream that have left.
    passed: u64,
    /// Bytes of all streams of the connection that were written by then.
    delivered: u64,
}

impl SendTimer {
    fn new(request: Arc<RequestState>) -> Self {
        Self { request, progress: None, place: None }
    }

    /// Ready when the stream is to be reset.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.request.unwritten() == 0 {
            self.progress = None;
            return Poll::Pending;
        }
        let connection = &self.request.connection;
        let server = &connection.server();
        let now = server.clock.now();
        let current = Progress {
            since: now,
            passed: self.request.passed(),
            delivered: connection.delivered(),
        };
        let progress = self.progress.get_or_insert(current);
        if current.passed != progress.passed {
            *progress = current;
        } else if connection.is_blocked()
            && current.delivered - progress.delivered < PASSED_OVER * connection.in_flight()
        {
            // Its turn may not have come: the whole connection waits for the client, and has a timer of its own.
            progress.since = now;
        }
        let since = progress.since;
        let until = server.gives_up(since, ClientTimeout::Send);
        if now >= until {
            server.note_client_timeout(
                ClientTimeout::Send,
                &connection.peer,
                Some(self.request.method_and_path().1),
            );
            if server.given_up_by(since, ClientTimeout::Send, now) == AbortCause::Shutdown {
                self.request.note_cut_by_drain();
            }
            return Poll::Ready(());
        }
        // One that is set for an earlier moment will do: then there is another look.
        if self.place.is_none_or(|place| place.deadline <= now) {
            self.remove();
            let at = until.min(now + GONE_CHECK);
            self.place = Some(self.request.connection.worker.deadlines.wait(
                at,
                TimeoutSource::Request,
                cx.waker().clone(),
            ));
        }
        Poll::Pending
    }

    fn remove(&mut self) {
        if let Some(place) = self.place.take() {
            self.request.connection.worker.deadlines.remove(place);
        }
    }
}

impl Drop for SendTimer {
    fn drop(&mut self) {
        self.remove();
    }
}
