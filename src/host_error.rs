//! The errors of a host: why it failed (P14), and how a user's task failed.

use crate::{
    errors::{Chain, chain, is_bad_setting},
    http::BoxError,
    unwind::catch,
};
use std::{error::Error, fmt, sync::Arc};

/// The reason why a host failed. [`Report::error`](crate::Report::error) holds it.
///
/// `{}` formats the message alone, `{:#}` the message with the whole chain of causes. Clones share
/// the cause.
#[derive(Clone)]
pub struct HostError {
    kind: HostErrorKind,
    message: String,
    with_causes: String,
    cause: Cause,
}

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostErrorKind {
    /// A setting or a plan is unusable. The exit code is 2.
    Settings,
    /// The closure that builds the host returned an error or panicked.
    Build,
    /// The system refused a thread, a descriptor, a signal handler or another resource.
    System,
    /// An address could not be bound or listened on.
    Listen,
    /// The certificate or key of the main server cannot be used.
    Tls,
    /// A start hook returned an error or panicked.
    StartHook,
    /// The start took longer than [`Plan::start`](crate::lifecycle::Plan::start).
    StartTimeout,
    /// A background task returned an error or panicked.
    BackgroundTask,
    /// Work that was spawned on a [`RequestContext`](crate::RequestContext) or a
    /// [`TaskContext`](crate::TaskContext) panicked.
    Work,
}

impl HostError {
    /// An error without a cause.
    pub(crate) fn new(kind: HostErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, with_causes: message.clone(), message, cause: Cause(None) }
    }

    /// An error with a cause of this crate or of the system.
    pub(crate) fn with_source(
        kind: HostErrorKind,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        let message = message.into();
        let with_causes = format!("{message}: {}", Chain(&source));
        Self { kind, message, with_causes, cause: Cause(Some(Arc::new(source))) }
    }

    /// An error of the settings. The message contains the text of `source`.
    pub(crate) fn settings(message: String, source: impl Error + Send + Sync + 'static) -> Self {
        let cause = Cause(Some(Arc::new(source)));
        Self { kind: HostErrorKind::Settings, with_causes: message.clone(), message, cause }
    }

    /// The error of the closure that builds the host. Its text is users' code.
    pub(crate) fn build(source: BoxError) -> Self {
        let TaskError { message, with_causes, cause } = TaskError::returned(source);
        let Some(error) = cause.get() else {
            let panic = format!("panicked: {message}");
            return Self::new(HostErrorKind::Build, panic);
        };
        let is_bad = catch(|| is_bad_setting(error)).unwrap_or(false);
        let kind = if is_bad { HostErrorKind::Settings } else { HostErrorKind::Build };
        Self { kind, message, with_causes, cause }
    }

    /// An error that a user's hook or task caused.
    pub(crate) fn of_task(kind: HostErrorKind, message: String, error: TaskError) -> Self {
        let with_causes = format!("{message}: {}", error.with_causes);
        Self { kind, message, with_causes, cause: Cause(Some(Arc::new(error))) }
    }

    /// Adds a note to the text with the causes.
    pub(crate) fn add_note(&mut self, note: &str) {
        self.with_causes.push_str(": ");
        self.with_causes.push_str(note);
    }

    /// The step that failed.
    #[must_use]
    pub const fn kind(&self) -> HostErrorKind {
        self.kind
    }

    /// The message and the whole chain of causes, as logs and the report have it: `a: b: c`. An
    /// error of the app may contain line breaks.
    #[must_use]
    pub fn with_causes(&self) -> &str {
        &self.with_causes
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if f.alternate() { &self.with_causes } else { &self.message })
    }
}

impl fmt::Debug for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostError")
            .field("kind", &self.kind)
            .field("with_causes", &self.with_causes)
            .finish_non_exhaustive()
    }
}

impl Error for HostError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.get().map(|cause| cause as _)
    }
}

/// The error that a hook or a background task returned, or its panic.
///
/// `{}` formats the error alone, `{:#}` the error with the whole chain of its causes. Clones share
/// the error.
#[derive(Clone)]
pub struct TaskError {
    message: String,
    with_causes: String,
    cause: Cause,
}

impl TaskError {
    /// Keeps an error that users' code returned. Formatting it is users' code, too; a panic in that
    /// takes the error's place.
    pub(crate) fn returned(error: BoxError) -> Self {
        let cause = Cause(Some(Arc::from(error)));
        let texts = catch(|| cause.get().map(|error| (error.to_string(), chain(error))));
        match texts {
            Ok(texts) => {
                let (message, with_causes) = texts.unwrap_or_default();
                Self { message, with_causes, cause }
            }
            Err(panic) => Self::without_cause(panic),
        }
    }

    /// A failure without an error: a panic, or a task that was dropped.
    pub(crate) fn without_cause(message: String) -> Self {
        Self { with_causes: message.clone(), message, cause: Cause(None) }
    }

    /// The error that the hook or task returned, to downcast it; `None` after a panic.
    #[must_use]
    pub fn get_ref(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.get()
    }

    /// The error and the whole chain of its causes: `a: b: c`. Or the panic's message. An error of
    /// the app may contain line breaks.
    #[must_use]
    pub fn with_causes(&self) -> &str {
        &self.with_causes
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if f.alternate() { &self.with_causes } else { &self.message })
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskError").field(&self.with_causes).finish()
    }
}

impl Error for TaskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.get()?.source()
    }
}

/// A shared cause. A panic in its destructor, which may be users' code, is contained (P15).
#[derive(Clone)]
struct Cause(Option<Arc<dyn Error + Send + Sync>>);

impl Cause {
    fn get(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.as_deref()
    }
}

impl Drop for Cause {
    fn drop(&mut self) {
        let cause = self.0.take();
        let _ = catch(|| drop(cause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_error_of_a_hook_is_found_by_its_type_behind_the_hosts() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = HostError::of_task(
            HostErrorKind::StartHook,
            "start hook pool failed".to_owned(),
            TaskError::returned(Box::new(refused)),
        );
        assert_eq!(error.to_string(), "start hook pool failed");
        assert_eq!(format!("{error:#}"), "start hook pool failed: connection refused");
        let task = error.source().and_then(|source| source.downcast_ref::<TaskError>());
        let returned = task.and_then(TaskError::get_ref);
        let kind =
            returned.and_then(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn an_error_that_panics_while_it_is_formatted_or_dropped_costs_its_text() {
        #[derive(Debug)]
        struct Bomb;
        impl fmt::Display for Bomb {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("formatted")
            }
        }
        impl Error for Bomb {}
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped")
            }
        }
        let error = HostError::build(Box::new(Bomb));
        assert_eq!(
            (error.kind(), error.with_causes()),
            (HostErrorKind::Build, "panicked: formatted")
        );
    }
}
