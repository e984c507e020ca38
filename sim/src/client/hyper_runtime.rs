//! What hyper's HTTP/2 client needs of a runtime: tasks that end with the client, and the world's
//! time.
#![expect(clippy::disallowed_methods, reason = "hyper's timer here is the world's time")]

use crate::task_count::counted;
use hyper::rt::{Executor, Sleep, Timer};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns hyper's tasks, and ends them with the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracked {
    tasks: TaskTracker,
    over: CancellationToken,
}

impl Tracked {
    /// Cancels the tasks, and returns when they have ended.
    pub(super) async fn end(self) {
        self.over.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let over = self.over.clone();
        self.tasks.spawn(counted(async move {
            tokio::select! {
                biased;
                () = future => {}
                () = over.cancelled() => {}
            }
        }));
    }
}

/// The world's time as a hyper timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorldTimer;

impl Timer for WorldTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(WorldSleep(Box::pin(tokio::time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(WorldSleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        if let Some(sleep) = sleep.as_mut().downcast_mut_pin::<WorldSleep>() {
            sleep.get_mut().0.as_mut().reset(deadline.into());
        }
    }
}

struct WorldSleep(Pin<Box<tokio::time::Sleep>>);

impl Future for WorldSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Sleep for WorldSleep {}
