//! Scripts of work that no client waits for: background tasks of the host, and tasks that handlers
//! leave behind.
//!
//! Records under the process's name: `task new`; `task notified`, with the moment in `of`; and
//! `task ends`, with `how` = `done`, `failed`, `panicked`, or `dropped` if the task was dropped
//! before it finished.

use crate::{
    app::Actor,
    client,
    hooks::{Act, ActEnd},
    scenario::Cooperation,
};
use lameduck::TaskContext;
use serde::{Deserialize, Serialize};
use std::{future, io, time::Duration};

/// Script of a background task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskScript {
    /// Name of the task.
    pub name: String,
    /// The moment that the task awaits first.
    pub until: Until,
    /// What the task does after that moment.
    pub then: Act,
    /// Work that it spawns when it begins: how long it lasts, and whether it ends when cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawns: Option<(u64, Cooperation)>,
}

/// A moment that a task awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// No moment: the task works at once.
    Begun,
    /// The stop request.
    Stopping,
    /// The beginning of the drain.
    Draining,
    /// The end of the drain.
    Cancelled,
}

impl Until {
    /// Returns the name used in the trace.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Stopping => "stopping",
            Self::Draining => "draining",
            Self::Cancelled => "cancelled",
        }
    }
}

impl TaskScript {
    /// Runs the script.
    pub(crate) async fn run(self, actor: Actor, context: TaskContext) -> io::Result<()> {
        let mut guard = TaskGuard::new(actor, self.name);
        if let Some((ms, cooperation)) = self.spawns {
            let left = TaskGuard::new(guard.actor.clone(), format!("left by {}", guard.task));
            guard.actor.trace.record(&guard.actor.name, "task spawns", &[]);
            let cancelled = context.clone();
            context.spawn(leftover(
                left,
                async move { cancelled.cancelled().await },
                Duration::from_millis(ms),
                cooperation,
            ));
        }
        match self.until {
            Until::Begun => {}
            Until::Stopping => context.stopping().await,
            Until::Draining => context.draining().await,
            Until::Cancelled => context.cancelled().await,
        }
        if self.until != Until::Begun {
            guard.told(self.until);
        }
        client::pause(Duration::from_millis(self.then.after_ms)).await;
        match self.then.end {
            ActEnd::Done => {
                guard.how = "done";
                Ok(())
            }
            ActEnd::Fails => {
                guard.how = "failed";
                Err(io::Error::other("as its script says"))
            }
            ActEnd::Hangs => future::pending().await,
            ActEnd::Panics => {
                guard.how = "panicked";
                panic!("as its script says")
            }
        }
    }
}

/// Work that a handler spawns and that outlives its response. It lasts `span`; if it heeds
/// cancellation, it ends earlier when the root context is cancelled.
pub(crate) async fn leftover(
    mut guard: TaskGuard,
    root_cancelled: impl Future<Output = ()> + Send,
    span: Duration,
    cooperation: Cooperation,
) {
    let cancelled = async {
        if cooperation == Cooperation::Heeds {
            root_cancelled.await;
        } else {
            future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = client::pause(span) => {}
        () = cancelled => guard.told(Until::Cancelled),
    }
    if cooperation == Cooperation::Panics {
        guard.how = "panicked";
        panic!("as its request says");
    }
    guard.how = "done";
}

/// Records the end of a task when dropped, so that a task that is cancelled is recorded too.
pub(crate) struct TaskGuard {
    actor: Actor,
    task: String,
    how: &'static str,
}

impl TaskGuard {
    pub(crate) fn new(actor: Actor, task: String) -> Self {
        actor.trace.record(&actor.name, "task begins", &[("task", task.as_str().into())]);
        Self { actor, task, how: "dropped" }
    }

    fn told(&self, of: Until) {
        let fields = [("task", self.task.as_str().into()), ("of", of.name().into())];
        self.actor.trace.record(&self.actor.name, "task notified", &fields);
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let fields = [("task", self.task.as_str().into()), ("how", self.how.into())];
        self.actor.trace.record(&self.actor.name, "task ends", &fields);
    }
}
