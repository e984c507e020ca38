//! Log output: lines on stderr that no reader can hold up (P15).
//!
//! Lines go through a bounded queue to a separate thread. A reader that does not read costs lines,
//! never a request and never the exit. A reader that is gone costs nothing.

use super::readable::Readable;
use crate::{
    SettingsError,
    os::{preflight, with_limit},
    process::end::exit_with,
};
use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal},
    mem::ManuallyDrop,
    sync::mpsc,
    thread,
    time::Duration,
};
use tracing::{Subscriber, subscriber::set_global_default};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_log::{AsLog as _, LogTracer};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON elsewhere.
    Auto,
    /// Human-readable.
    Human,
    /// One JSON object per line.
    Json,
}

/// Bound of the queue for a slow reader, in lines. Further lines are dropped.
const QUEUED_LINES_MAX: usize = 16_384;

/// Time limit for writing the last lines. It is shorter than the watchdog's 500 ms. Otherwise a
/// stuck reader could turn an exit at the end of the bound into the watchdog's exit.
const FLUSH_MAX: Duration = Duration::from_millis(400);

/// Flushes queued lines when it is dropped, within at most 400 ms.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Log(Option<WorkerGuard>);

impl Drop for Log {
    /// Flushes on a separate thread. With a full queue the guard reports that on standard output,
    /// which may be the same pipe.
    fn drop(&mut self) {
        let flusher = thread::Builder::new().name("lameduck-flush".into());
        drop_within(self.0.take(), FLUSH_MAX, |work| flusher.spawn(work).map(drop));
    }
}

/// Drops a value on a thread that `spawn` starts, and waits for that at most this long. Without a
/// thread it waits for as long, so that the thread of the log writes what is queued, and leaks the
/// value.
#[expect(clippy::disallowed_methods, reason = "the process ends, and no world sees it")]
fn drop_within<V: Send + 'static>(
    value: V,
    max_wait: Duration,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) {
    let value = ManuallyDrop::new(value);
    let (dropped, end) = mpsc::channel::<()>();
    let spawned = spawn(Box::new(move || {
        drop(ManuallyDrop::into_inner(value));
        drop(dropped);
    }));
    match spawned {
        // Wait for the sender to be dropped.
        Ok(()) => drop(end.recv_timeout(max_wait)),
        Err(_) => thread::sleep(max_wait),
    }
}

/// An error that leaves the process without a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogError {
    /// The filter is invalid.
    Filter(SettingsError),
    /// The system refused the thread that writes the lines.
    Thread(io::Error),
    /// The process has a subscriber of `tracing` already.
    AlreadySet,
}

impl LogError {
    /// Ends the process as a failed start does: with one line `error: …` on standard error, and
    /// exit code 2 if the filter is invalid, otherwise 1.
    pub fn exit(&self) -> ! {
        exit_with(
            self,
            match self {
                Self::Filter(_) => 2,
                Self::Thread(_) | Self::AlreadySet => 1,
            },
        )
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "cannot start the log thread: {error}"),
            Self::AlreadySet => {
                f.write_str("cannot install the log: the process has a tracing subscriber already")
            }
        }
    }
}

impl Error for LogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Filter(error) => Some(error),
            Self::Thread(_) | Self::AlreadySet => None,
        }
    }
}

/// Installs the log of this process. `filter` has the syntax of `RUST_LOG`; without it that
/// variable is read, and the default is `info`.
///
/// ```no_run
/// use lameduck::{RunOptions, cli::logging::{self, LogFormat}};
/// # fn host() -> Result<lameduck::Host<impl lameduck::HttpService>, lameduck::SettingsError> {
/// #     Ok(lameduck::Host::builder(lameduck::Settings::from_env()?).serve(axum::Router::new()))
/// # }
///
/// let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
/// lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || Ok(host()?))
/// ```
///
/// # Errors
/// [`LogError`] if the filter is invalid, the system refuses a thread, or the process has a
/// subscriber already.
pub fn install(format: LogFormat, filter: Option<&str>) -> Result<Log, LogError> {
    let filter = log_filter(filter).map_err(LogError::Filter)?;
    let writing = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES_MAX)
        .thread_name("lameduck-log");
    let started = preflight::catch_refusal(|| writing.finish(io::stderr()), || ());
    let (writer, guard) = started.map_err(no_thread)?;
    let is_terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false)
        // The subscriber would report errors with `eprintln!`, which panics when the reader is
        // gone.
        .log_internal_errors(false);
    if json {
        // The host opens no span. An app's span, such as a request's with its id, belongs to its
        // lines.
        let json = builder.json().flatten_event(true).with_current_span(true);
        set(json.with_span_list(false).finish())?;
    } else {
        set(builder.fmt_fields(Readable::default()).with_ansi(is_terminal).finish())?;
    }
    log_panics();
    Ok(Log(Some(guard)))
}

/// Makes this the subscriber of the process, also for records of the crate `log`.
fn set(subscriber: impl Subscriber + Send + Sync) -> Result<(), LogError> {
    set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    // If the app has a logger, it stays.
    let _ = LogTracer::builder().with_max_level(LevelFilter::current().as_log()).init();
    Ok(())
}

fn no_thread(error: io::Error) -> LogError {
    LogError::Thread(with_limit(error))
}

/// Parses the flag's filter, else the variable's, else `info`.
fn log_filter(flag: Option<&str>) -> Result<EnvFilter, SettingsError> {
    let (source, filter) = match flag {
        Some(filter) => ("--log-level", filter.to_owned()),
        None => match crate::settings::variable("RUST_LOG") {
            Some(filter) if !filter.is_empty() => ("RUST_LOG", filter),
            Some(_) | None => return Ok(EnvFilter::new("info")),
        },
    };
    let refused = |reason: String| SettingsError {
        setting: source.to_owned(),
        value: filter.clone(),
        reason,
    };
    if filter.contains(char::REPLACEMENT_CHARACTER) {
        return Err(refused("not valid UTF-8".to_owned()));
    }
    // A single word would be parsed as a module name and silence all other modules. A misspelled
    // level would then leave no log at all, and no directive would leave only errors.
    let mut directives = filter.split(',').filter(|directive| !directive.trim().is_empty());
    let only = (directives.next(), directives.next());
    let is_word = |directive: &str| !directive.contains(['=', ':', '[', '/']);
    let leaves_no_log = match only {
        (None, _) => true,
        (Some(only), None) => is_word(only) && only.parse::<LevelFilter>().is_err(),
        (Some(_), Some(_)) => false,
    };
    if leaves_no_log {
        return Err(refused(
            "expected off, error, warn, info, debug, trace, or a filter such as info,hyper=debug"
                .to_owned(),
        ));
    }
    EnvFilter::try_new(&filter).map_err(|error| refused(error.to_string()))
}

/// Replaces the default panic hook. That one writes to stderr directly, so a stuck reader would
/// block the thread that panics, usually a worker.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        crate::log::error!(
            panic = message(panic).unwrap_or("(no message)"),
            location = panic.location().map(tracing::field::display),
            thread = thread.name(),
            "panicked"
        );
    }));
}

/// `PanicHookInfo::payload_as_str`, which needs Rust 1.91.
fn message<'a>(panic: &'a std::panic::PanicHookInfo<'_>) -> Option<&'a str> {
    let payload = panic.payload();
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::{FLUSH_MAX, drop_within, log_filter};
    use std::{
        io,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
        thread,
    };

    #[test]
    fn filters_with_a_directive_are_accepted() {
        for filter in ["off", "info,", "warn,hyper=debug", "hyper,tokio", "[request]=trace"] {
            assert!(log_filter(Some(filter)).is_ok(), "{filter}");
        }
    }

    // A process at its limit of threads flushed its log on the main thread instead, for a second if
    // the reader was stuck. With a stop that had used its whole bound, it ended with the watchdog's
    // exit code (P13).
    #[test]
    fn a_log_that_no_thread_can_flush_is_not_flushed() {
        static DROPPED: AtomicU32 = AtomicU32::new(0);
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, SeqCst);
            }
        }
        drop_within(Guard, FLUSH_MAX, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(DROPPED.load(SeqCst), 0);
        drop_within(Guard, FLUSH_MAX, |work| thread::Builder::new().spawn(work).map(drop));
        assert_eq!(DROPPED.load(SeqCst), 1);
    }
}
