//! Hooks that act according to a script and record it.
//!
//! Records under the process's name: `hook begins` and `hook ends`, with the hook and its stage
//! (`start` or `stop`). A hook that is dropped or panics has no `hook ends`.

use crate::{app::Actor, blocking::block, client};
use lameduck::Hook;
use serde::{Deserialize, Serialize};
use std::{future, io, time::Duration};

/// Script of a hook pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookScript {
    /// Name of the hook.
    pub name: String,
    /// Script of the start hook.
    pub start: Act,
    /// Script of the stop hook.
    pub stop: Act,
    /// Budget of the stop hook; `None` to share the common budget.
    pub budget_ms: Option<u64>,
    /// Whether the start hook blocks its thread while it works, so that it cannot be cancelled.
    /// Only in simulated time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_blocks: bool,
}

/// Script of one stage of a hook pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// How long the hook works before it ends.
    pub after_ms: u64,
    /// How the hook ends.
    pub end: ActEnd,
}

/// How one stage of a hook pair ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActEnd {
    /// With success.
    Done,
    /// With an error.
    Fails,
    /// Never; it hangs.
    Hangs,
    /// With a panic.
    Panics,
}

impl Act {
    /// Succeeds at once.
    pub const PROMPT: Self = Self { after_ms: 0, end: ActEnd::Done };

    /// Ends with `end` at once.
    #[must_use]
    pub const fn ends(end: ActEnd) -> Self {
        Self { after_ms: 0, end }
    }

    /// Succeeds after `after_ms`.
    #[must_use]
    pub const fn takes(after_ms: u64) -> Self {
        Self { after_ms, end: ActEnd::Done }
    }
}

impl HookScript {
    /// Creates a pair of which both halves succeed at once.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let (start, stop) = (Act::PROMPT, Act::PROMPT);
        Self { name: name.to_owned(), start, stop, budget_ms: None, start_blocks: false }
    }

    /// Replaces the start hook.
    #[must_use]
    pub const fn start(mut self, act: Act) -> Self {
        self.start = act;
        self
    }

    /// Replaces the stop hook.
    #[must_use]
    pub const fn stop(mut self, act: Act) -> Self {
        self.stop = act;
        self
    }

    /// Builds the hook for the process of `actor`.
    pub fn hook(&self, actor: &Actor) -> Hook {
        let (script, starting, stopping) = (self.clone(), actor.clone(), actor.clone());
        let hook = Hook::pair(
            self.name.clone(),
            {
                let script = script.clone();
                move || async move {
                    let works = if script.start_blocks { Works::Blocking } else { Works::Waiting };
                    act(&starting, &script.name, "start", script.start, works).await
                }
            },
            move |()| async move {
                act(&stopping, &script.name, "stop", script.stop, Works::Waiting).await
            },
        );
        match self.budget_ms {
            Some(budget_ms) => hook.stop_timeout(Duration::from_millis(budget_ms)),
            None => hook,
        }
    }
}

/// How a hook spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Works {
    Waiting,
    Blocking,
}

async fn act(
    actor: &Actor,
    hook: &str,
    stage: &'static str,
    act: Act,
    works: Works,
) -> io::Result<()> {
    let fields = [("hook", hook.into()), ("stage", stage.into())];
    actor.trace.record(&actor.name, "hook begins", &fields);
    let lasts = Duration::from_millis(act.after_ms);
    match works {
        Works::Waiting => client::pause(lasts).await,
        Works::Blocking => block(lasts).await,
    }
    let end = match act.end {
        ActEnd::Done => Ok(()),
        ActEnd::Fails => Err(io::Error::other("as its script says")),
        ActEnd::Hangs => future::pending().await,
        ActEnd::Panics => panic!("as its script says"),
    };
    actor.trace.record(&actor.name, "hook ends", &fields);
    end
}
