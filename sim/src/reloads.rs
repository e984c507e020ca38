//! Reloads of the service, by SIGHUP.
//!
//! Records under the process's name: `reload requested` for each SIGHUP, and `reload begins`. A
//! service with a reload does not stop by SIGHUP.

use crate::{app::Actor, client, hooks::ActEnd};
use lameduck::Builder;
use serde::{Deserialize, Serialize};
use std::{
    future, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Script of the reloads of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadScript {
    /// When SIGHUP is sent.
    pub at_ms: Vec<u64>,
    /// Duration of one reload.
    pub takes_ms: u64,
    /// How each reload ends, in turn.
    pub ends: Vec<ActEnd>,
}

impl ReloadScript {
    /// How the n-th reload ends.
    #[must_use]
    pub fn end(&self, n: usize) -> ActEnd {
        self.ends.get(n % self.ends.len().max(1)).copied().unwrap_or(ActEnd::Done)
    }

    /// Gives the service of `builder` its reload.
    pub(crate) fn reload(self, actor: &Actor, builder: Builder) -> Builder {
        let (script, actor) = (Arc::new(self), actor.clone());
        let runs = AtomicUsize::new(0);
        builder.on_reload(move || {
            let (script, actor) = (Arc::clone(&script), actor.clone());
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                actor.trace.record(&actor.name, "reload begins", &[]);
                client::pause(Duration::from_millis(script.takes_ms)).await;
                match script.end(run) {
                    ActEnd::Done => Ok(()),
                    ActEnd::Fails => Err(io::Error::other("as its script says")),
                    ActEnd::Hangs => future::pending().await,
                    ActEnd::Panics => panic!("as its script says"),
                }
            }
        })
    }
}
