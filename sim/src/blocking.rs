//! Users' code that blocks its thread for a while. Nothing can cancel or drop it meanwhile, and it
//! ends with its result, although it was cancelled.

use crate::client;
use lameduck::runtime::BoxFuture;
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

thread_local! {
    /// What the job that is being polled has asked for.
    static REQUESTED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Blocks the job that calls it. Never ready outside a [`Blockable`] job.
pub(crate) async fn block(span: Duration) {
    let mut has_begun = false;
    poll_fn(|_| {
        if mem::replace(&mut has_begun, true) {
            return Poll::Ready(());
        }
        REQUESTED.set(Some(span));
        Poll::Pending
    })
    .await;
}

/// A job that may block: it is not polled meanwhile.
pub(crate) struct Blockable {
    job: BoxFuture,
    blocked: Option<BoxFuture>,
}

impl Blockable {
    pub(crate) fn boxed(job: BoxFuture) -> BoxFuture {
        Box::pin(Self { job, blocked: None })
    }
}

impl Future for Blockable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(blocked) = &mut self.blocked {
                ready!(blocked.as_mut().poll(cx));
                self.blocked = None;
            }
            let polled = self.job.as_mut().poll(cx);
            let Some(span) = REQUESTED.take().filter(|_| polled.is_pending()) else {
                return polled;
            };
            self.blocked = Some(Box::pin(client::pause(span)));
        }
    }
}
