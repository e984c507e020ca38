//! Readiness checks (P2): taken on the main runtime at an interval, and anew when Serving begins; the probe only reads the last
//! result.

use crate::{
    errors::chain, hook::BoxFuture, http::BoxError, lifecycle::Moment, runtime::Clock,
    unwind::unwind,
};
use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// A check that must pass for the service to be ready.
///
/// It runs from before the start hooks on, once an interval, and anew in the moment in which Serving begins, so that what a hook has
/// opened counts at once. A run that is under way then is dropped, as one is that takes too long. Checks go on through the lame duck
/// delay, because `/serving` depends on them (P2b), and end when the drain begins.
///
/// ```
/// use lameduck::Check;
/// use std::time::Duration;
///
/// let database = Check::new("database", || async { Ok::<(), std::io::Error>(()) })
///     .interval(Duration::from_secs(2))
///     .timeout(Duration::from_millis(500));
/// ```
pub struct Check {
    name: String,
    probe: Box<dyn Fn() -> BoxFuture<Result<(), BoxError>> + Send + Sync>,
    interval: Duration,
    timeout: Duration,
}

impl Check {
    /// A check that passes when `probe` returns `Ok`. It runs on the main runtime, so a main runtime that is stuck makes it
    /// stale, and stale is not ready.
    pub fn new<F, Fut, E>(name: impl Into<String>, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let probe = move || -> BoxFuture<Result<(), BoxError>> {
            let probing = probe();
            Box::pin(async move { probing.await.map_err(Into::into) })
        };
        Self {
            name: name.into(),
            probe: Box::new(probe),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        }
    }

    /// The pause between the end of one run and the begin of the next. Default 5 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a run may take before it counts as failed. Default 1 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What the probe endpoint reads.
    pub(crate) fn result(&self) -> Arc<CheckResult> {
        Arc::new(CheckResult {
            name: self.name.clone(),
            stale_after: self
                .interval
                .saturating_add(self.timeout)
                .saturating_mul(2)
                .saturating_add(Duration::from_secs(1)),
            last: Mutex::new(None),
        })
    }

    /// Runs the check again and again, until it is dropped. What it said before Serving was of a service whose hooks had not run:
    /// `serving` begins it anew.
    pub(crate) async fn run(
        self,
        clock: Arc<dyn Clock>,
        board: Arc<CheckResult>,
        serving: CancellationToken,
    ) {
        let _ = serving.run_until_cancelled(self.repeat(&*clock, &board)).await;
        self.repeat(&*clock, &board).await;
    }

    async fn repeat(&self, clock: &dyn Clock, board: &CheckResult) {
        loop {
            let mut late = clock.sleep_until(clock.now() + self.timeout);
            let outcome = tokio::select! {
                biased;
                probed = unwind(async { (self.probe)().await.map_err(|error| chain(&*error)) }) => match probed {
                    Ok(outcome) => outcome,
                    Err(panic) => Err(format!("panicked: {panic}")),
                },
                () = late.as_mut() => Err(format!("no result within {:?}", self.timeout)),
            };
            board.note(clock.now(), outcome);
            clock.sleep_until(clock.now() + self.interval).await;
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The last result of a check.
#[derive(Debug)]
pub(crate) struct CheckResult {
    pub(crate) name: String,
    stale_after: Duration,
    last: Mutex<Option<(Moment, Result<(), String>)>>,
}

impl CheckResult {
    fn note(&self, now: Moment, outcome: Result<(), String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.as_ref().map(|(_, outcome)| outcome.is_ok());
        match &outcome {
            Ok(()) if before == Some(false) => {
                crate::log::info!(check = self.name, "readiness check passes again");
            }
            Err(reason) if before != Some(false) => {
                crate::log::warn!(check = self.name, reason, "readiness check fails");
            }
            Ok(()) | Err(_) => {}
        }
        *last = Some((now, outcome));
    }

    /// Why the service is not ready as far as this check goes; `None` if it passes.
    pub(crate) fn failure(&self, now: Moment) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            None => Some("has not run yet".to_owned()),
            Some((at, _)) if now.since(*at) > self.stale_after => {
                Some(format!("has not run for {:?}: is the main runtime stuck?", now.since(*at)))
            }
            Some((_, Ok(()))) => None,
            Some((_, Err(reason))) => Some(reason.clone()),
        }
    }
}
