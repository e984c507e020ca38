//! The end of a run: names its failure, and drops what is left of the app within a bound.

use crate::{
    Report, SettingsError,
    errors::{causes, chain, one_line},
    host_error::HostErrorKind,
    lifecycle::{Verdict, WATCHDOG_SLACK},
    os::{ThreadPerWorker, TokioClock, reached_limit, stdio::write_stderr_line},
    runtime::{Clock, Spawner},
    unwind::{catch, discard},
};
use std::{error::Error, io, num::NonZeroUsize, sync::Arc, time::Duration};

/// Prints the failure of a run, and then drops what is left of the app.
pub(super) fn conclude<T>(report: Report, leftovers: T) -> Report {
    let report = with_limit_named(report);
    print_failure(&report);
    if report.phases.is_empty() {
        // Nothing ran, so no stop has armed a watchdog.
        bound_the_end(&report);
    }
    discard(leftovers);
    report
}

/// The time that the app's destructors and `finish` have at most if nothing has run: after a start
/// that failed (P14), or a stop before the start.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Arms a watchdog for the end. A process that is out of threads gets none, but still its `finish`.
fn bound_the_end(report: &Report) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::unpausable());
    // A stop has the bound of the plan (P7).
    let limit = match report.reason {
        Some(_) => FINISH_MAX.min(report.worst_case.saturating_add(WATCHDOG_SLACK)),
        None => FINISH_MAX,
    };
    ThreadPerWorker::new(clock.clone(), NonZeroUsize::MIN).arm_watchdog(clock.now() + limit);
}

/// Names the limit of the system that made the start fail, if nothing has run yet and the error
/// does not name it (P14). EAGAIN in an error of the app's code is not the refusal of a thread: a
/// socket or a lock may return it, too.
pub(super) fn with_limit_named(mut report: Report) -> Report {
    if let Some(error) = report.error.as_mut().filter(|_| report.phases.is_empty()) {
        let is_of_app = matches!(error.kind(), HostErrorKind::Build | HostErrorKind::Settings);
        let limit = || {
            causes(error)
                .filter_map(|cause| cause.downcast_ref::<io::Error>())
                .filter(|cause| !(is_of_app && cause.kind() == io::ErrorKind::WouldBlock))
                .find_map(reached_limit)
        };
        // The causes are the app's code.
        if let Ok(Some(limit)) = catch(limit) {
            error.add_note(&limit);
        }
    }
    report
}

/// Writes the failure, if there is one, as one line to standard error (P14): its error, or the
/// whole report if that has more and no subscriber has logged it.
pub(super) fn print_failure(report: &Report) {
    let is_loss = matches!(report.verdict, Verdict::Aborted | Verdict::HookFailed);
    match &report.error {
        _ if is_loss && !crate::log::takes_errors() => print_error(&report.to_string()),
        Some(error) => print_error(error.with_causes()),
        None => {}
    }
}

fn print_error(text: &str) {
    write_stderr_line(&format!("error: {}", one_line(text)));
}

impl SettingsError {
    /// Ends the process as a failed start does: with one line `error: …` on standard error, and
    /// exit code 2. For a `main` that reads its settings itself:
    ///
    /// ```no_run
    /// let settings = lameduck::Settings::from_env().unwrap_or_else(|error| error.exit());
    /// ```
    pub fn exit(&self) -> ! {
        exit_with(self, 2)
    }
}

/// Prints an error with its causes, and ends the process.
pub(crate) fn exit_with(error: &(dyn Error + 'static), code: u8) -> ! {
    print_error(&chain(error));
    super::exit(code)
}
