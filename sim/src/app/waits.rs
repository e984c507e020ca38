//! The waits of handlers. They show whether a handler is polled when it is woken.

use super::HandlerGuard;
use crate::client;
use std::time::Duration;
use tokio::time::Instant;

/// Two ticks of tokio's timers.
const ON_TIME: Duration = Duration::from_millis(2);

impl HandlerGuard {
    /// Waits. Records `handler woken late` if the handler was polled later than that.
    pub(super) async fn pause(&self, span: Duration) {
        let due = Instant::now() + span;
        client::pause(span).await;
        let late = due.elapsed();
        if late > ON_TIME {
            let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            let fields = [("handler", self.handler.into()), ("late_us", late_us.into())];
            self.actor.trace.record(&self.actor.name, "handler woken late", &fields);
        }
    }
}
