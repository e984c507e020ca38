//! Hooks that do as a script says, and tell the trace.
//!
//! Records, by the process's name: `hook begins` and `hook ends`, with the hook and its half. One that is given up or that
//! panics begins and does not end.

use crate::{app::Actor, client};
use lameduck::Hook;
use serde::{Deserialize, Serialize};
use std::{future, io, time::Duration};

/// A pair of hooks, as a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookScript {
    /// Its name.
    pub name: String,
    /// What its start does.
    pub start: Act,
    /// What its stop does.
    pub stop: Act,
    /// The stop's own budget; `None` to share.
    pub budget_ms: Option<u64>,
}

/// What half of a hook pair does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// How long it works first.
    pub after_ms: u64,
    /// How it ends.
    pub end: ActEnd,
}

/// How half of a hook pair ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActEnd {
    /// Well.
    Done,
    /// With an error.
    Fails,
    /// Never.
    Hangs,
    /// With a panic.
    Panics,
}

impl Act {
    /// Done at once.
    pub const PROMPT: Self = Self { after_ms: 0, end: ActEnd::Done };

    /// Ends so, at once.
    #[must_use]
    pub const fn ends(end: ActEnd) -> Self {
        Self { after_ms: 0, end }
    }

    /// Done after a while.
    #[must_use]
    pub const fn takes(after_ms: u64) -> Self {
        Self { after_ms, end: ActEnd::Done }
    }
}

impl HookScript {
    /// A pair that is done at once, both times.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), start: Act::PROMPT, stop: Act::PROMPT, budget_ms: None }
    }

    /// With another start.
    #[must_use]
    pub const fn start(mut self, act: Act) -> Self {
        self.start = act;
        self
    }

    /// With another stop.
    #[must_use]
    pub const fn stop(mut self, act: Act) -> Self {
        self.stop = act;
        self
    }

    /// The hook, in a process.
    pub fn hook(&self, actor: &Actor) -> Hook {
        let (script, starting, stopping) = (self.clone(), actor.clone(), actor.clone());
        let hook = Hook::pair(
            self.name.clone(),
            {
                let script = script.clone();
                move || async move { act(&starting, &script.name, "start", script.start).await }
            },
            move |()| async move { act(&stopping, &script.name, "stop", script.stop).await },
        );
        match self.budget_ms {
            Some(budget_ms) => hook.budget(Duration::from_millis(budget_ms)),
            None => hook,
        }
    }
}

async fn act(actor: &Actor, hook: &str, half: &'static str, act: Act) -> io::Result<()> {
    let fields = [("hook", hook.into()), ("half", half.into())];
    actor.trace.record(&actor.name, "hook begins", &fields);
    client::pause(Duration::from_millis(act.after_ms)).await;
    let end = match act.end {
        ActEnd::Done => Ok(()),
        ActEnd::Fails => Err(io::Error::other("as its script says")),
        ActEnd::Hangs => future::pending().await,
        ActEnd::Panics => panic!("as its script says"),
    };
    actor.trace.record(&actor.name, "hook ends", &fields);
    end
}
