//! Readiness checks that pass and fail according to a script. Each run records `check begins`, and
//! at its end `checked`, with `passes` = `yes` or `no`.

use crate::{app::Actor, client};
use lameduck::ReadinessCheck;
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// Script of a readiness check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckScript {
    /// Name of the check.
    pub name: String,
    /// Pause between two runs, by the host's clock.
    pub every_ms: u64,
    /// Duration of one run.
    pub takes_ms: u64,
    /// Index of the first run that fails, counted from 0.
    pub fails_from: u64,
    /// Number of runs that fail from there on.
    pub fails: u64,
    /// Index of the first run that never returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hangs_from: Option<u64>,
    /// Time limit of one run, by the host's clock; `None` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Default time limit of a readiness check.
const TIMEOUT: Duration = Duration::from_secs(1);

impl CheckScript {
    /// The time limit of one run, by the host's clock.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout_ms.map_or(TIMEOUT, Duration::from_millis)
    }

    /// Whether a run passes, counted from 0.
    const fn passes(&self, run: u64) -> bool {
        run < self.fails_from || run - self.fails_from >= self.fails
    }

    pub(crate) fn check(&self, actor: &Actor) -> ReadinessCheck {
        let (script, actor) = (self.clone(), actor.clone());
        let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let every = Duration::from_millis(self.every_ms);
        let timeout = self.timeout();
        ReadinessCheck::new(self.name.clone(), move || {
            let (script, actor) = (script.clone(), actor.clone());
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                let begins = [("check", script.name.as_str().into())];
                actor.trace.record(&actor.name, "check begins", &begins);
                if script.hangs_from.is_some_and(|from| run >= from) {
                    let fields = [("check", script.name.into())];
                    actor.trace.record(&actor.name, "check hangs", &fields);
                    actor.trace.state_changed().notify_one();
                    std::future::pending::<()>().await;
                    return Ok(());
                }
                client::pause(Duration::from_millis(script.takes_ms)).await;
                let passes = script.passes(run);
                let is_new = run == 0 || passes != script.passes(run - 1);
                let fields = [
                    ("check", script.name.into()),
                    ("passes", if passes { "yes" } else { "no" }.into()),
                ];
                actor.trace.record(&actor.name, "checked", &fields);
                if is_new {
                    actor.trace.state_changed().notify_one();
                }
                if passes { Ok(()) } else { Err(io::Error::other("as its script says")) }
            }
        })
        .interval(every)
        .timeout(timeout)
    }
}
