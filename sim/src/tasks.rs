//! Work that no client waits for, as a script that tells the trace: background tasks of the host, and what handlers leave behind.
//!
//! Records, by the process's name: `task begins`, `task told` (of which moment), and `task ends` with how: `done`, `failed`,
//! `panicked`, or `dropped` if it was not let finish.

use crate::{
    app::Actor,
    client,
    hooks::{Act, ActEnd},
    scenario::Cooperation,
};
use lameduck::{RequestContext, TaskContext};
use serde::{Deserialize, Serialize};
use std::{future, io, time::Duration};

/// A background task, as a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskScript {
    /// Its name.
    pub name: String,
    /// What it waits for first.
    pub until: Until,
    /// What it does then.
    pub then: Act,
}

/// A moment that a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// None: it works at once.
    Begun,
    /// The stop request.
    Stopping,
    /// The beginning of the drain.
    Draining,
    /// The end of the drain.
    Cancelled,
}

impl Until {
    /// Its name in the trace.
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
    /// Does as it says.
    pub(crate) async fn run(self, actor: Actor, context: TaskContext) -> io::Result<()> {
        let mut guard = TaskGuard::begins(actor, self.name);
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

/// Work that a handler spawns and that outlives its response: it lasts `span`, or until the root context is cancelled if it heeds
/// that.
pub(crate) async fn leftover(
    mut guard: TaskGuard,
    context: RequestContext,
    span: Duration,
    cooperation: Cooperation,
) {
    let cancelled = async {
        if cooperation == Cooperation::Heeds {
            context.root_cancelled().await;
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

/// Tells the trace when a task is gone, however.
pub(crate) struct TaskGuard {
    actor: Actor,
    task: String,
    how: &'static str,
}

impl TaskGuard {
    pub(crate) fn begins(actor: Actor, task: String) -> Self {
        actor.trace.record(&actor.name, "task begins", &[("task", task.as_str().into())]);
        Self { actor, task, how: "dropped" }
    }

    fn told(&self, of: Until) {
        let fields = [("task", self.task.as_str().into()), ("of", of.name().into())];
        self.actor.trace.record(&self.actor.name, "task told", &fields);
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let fields = [("task", self.task.as_str().into()), ("how", self.how.into())];
        self.actor.trace.record(&self.actor.name, "task ends", &fields);
    }
}
