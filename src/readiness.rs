//! Readiness checks (P2). They run on the user runtime once an interval, and again when Serving
//! begins; the probes only read the latest result.

use crate::{
    errors::chain,
    hook::BoxFuture,
    http::BoxError,
    lifecycle::Moment,
    runtime::Clock,
    unwind::{AppValue, unwind},
};
use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// A check that must pass for the service to be ready.
///
/// It runs from before the start hooks on, with a pause of [`interval`](Self::interval) between two
/// runs, and again at the moment when Serving begins, so that what a start hook has opened counts
/// at once. A run that is then in progress is dropped, as is one that takes too long. Checks
/// continue through the lame duck delay, because `/serving` depends on them (P2b). They end when
/// the drain begins.
///
/// ```
/// use lameduck::ReadinessCheck;
/// use std::time::Duration;
///
/// let database = ReadinessCheck::new("database", || async { Ok::<(), std::io::Error>(()) })
///     .interval(Duration::from_secs(2))
///     .timeout(Duration::from_millis(500));
/// ```
pub struct ReadinessCheck {
    name: String,
    check: Box<dyn Fn() -> BoxFuture<Result<(), BoxError>> + Send + Sync>,
    interval: Duration,
    timeout: Duration,
}

impl ReadinessCheck {
    /// A check that passes when `check` returns `Ok`. It runs where background tasks run.
    /// A result that is older than two intervals and two timeouts plus 1 s counts as a failure.
    pub fn new<F, Fut, E>(name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let check = AppValue::new(check);
        let check = move || -> BoxFuture<Result<(), BoxError>> {
            let running = check();
            Box::pin(async move { running.await.map_err(Into::into) })
        };
        Self {
            name: name.into(),
            check: Box::new(check),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        }
    }

    /// The pause from the end of one run to the start of the next. Default 5 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The time limit of a run; one that takes longer counts as failed. Default 1 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The result that the probes read.
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

    /// Runs the check until it is dropped. Restarts it at `serving`: an earlier result is of a
    /// service whose start hooks had not finished.
    pub(crate) async fn run(
        self,
        clock: Arc<dyn Clock>,
        result: Arc<CheckResult>,
        serving: CancellationToken,
    ) {
        let _ = serving.run_until_cancelled(self.repeat(&*clock, &result)).await;
        self.repeat(&*clock, &result).await;
    }

    async fn repeat(&self, clock: &dyn Clock, result: &CheckResult) {
        loop {
            let mut late = clock.sleep_until(clock.now() + self.timeout);
            let outcome = tokio::select! {
                biased;
                ended = unwind(async { (self.check)().await.map_err(|error| chain(&*error)) }) => {
                    ended.unwrap_or_else(|panic| Err(format!("panicked: {panic}")))
                }
                () = late.as_mut() => Err(format!("no result within {:?}", self.timeout)),
            };
            result.record(clock.now(), outcome);
            clock.sleep_until(clock.now() + self.interval).await;
        }
    }
}

impl fmt::Debug for ReadinessCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadinessCheck")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The latest result of a check.
#[derive(Debug)]
pub(crate) struct CheckResult {
    pub(crate) name: String,
    stale_after: Duration,
    last: Mutex<Option<(Moment, Result<(), String>)>>,
}

impl CheckResult {
    fn record(&self, now: Moment, outcome: Result<(), String>) {
        let failure = outcome.as_ref().err().cloned();
        let before = self.lock().replace((now, outcome)).map(|(_, outcome)| outcome.is_ok());
        // Without the lock, which the probes take: the app's subscriber may block.
        match failure {
            None if before == Some(false) => {
                crate::log::info!(check = self.name, "readiness check passes again");
            }
            Some(reason) if before != Some(false) => {
                crate::log::warn!(check = self.name, reason, "readiness check fails");
            }
            None | Some(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Moment, Result<(), String>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reason why this check fails; `None` if it passes.
    pub(crate) fn failure(&self, now: Moment) -> Option<String> {
        match &*self.lock() {
            None => Some("has not run yet".to_owned()),
            Some((at, _)) if now.since(*at) > self.stale_after => {
                Some(format!("has not run for {:?}: is the main runtime stuck?", now.since(*at)))
            }
            Some((_, Ok(()))) => None,
            Some((_, Err(reason))) => Some(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    // No test noticed a host in which a check that no longer runs passes for ever.
    #[test]
    fn a_result_is_stale_after_two_runs_and_a_second_also_one_that_passed() {
        for outcome in [Ok(()), Err("down".to_owned())] {
            let result = ReadinessCheck::new("db", || async { Ok::<_, &str>(()) }).result();
            let start = Moment::from_nanos(1);
            let latest = start + 2 * Duration::from_secs(5 + 1) + Duration::from_secs(1);
            result.record(start, outcome.clone());
            assert_eq!(result.failure(latest), outcome.err());
            let failure = result.failure(latest + Duration::from_nanos(1)).unwrap();
            assert!(failure.starts_with("has not run for 13"), "{failure}");
        }
    }

    /// A subscriber that counts the events during which a probe can read the result.
    struct Probes(Arc<CheckResult>, Arc<AtomicU64>);

    impl tracing::Subscriber for Probes {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, _: &tracing::Event<'_>) {
            self.1.fetch_add(self.0.last.try_lock().is_ok().into(), Relaxed);
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    // The reader of an app's log was stuck when a check failed. The result was locked meanwhile, so
    // no probe had a response, and the kubelet ended a process that served (P15, P16).
    #[test]
    fn a_result_is_not_locked_while_it_is_logged() {
        let result = ReadinessCheck::new("db", || async { Ok::<_, &str>(()) }).result();
        let read = Arc::<AtomicU64>::default();
        tracing::subscriber::with_default(Probes(result.clone(), read.clone()), || {
            result.record(Moment::from_nanos(1), Err("down".to_owned()));
            result.record(Moment::from_nanos(2), Ok(()));
        });
        assert_eq!(read.load(Relaxed), 2);
    }
}
