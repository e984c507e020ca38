//! Runs an app's code so that a panic costs only that code (P15).

use std::{
    any::Any,
    future::Future,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

/// Runs `code`. Returns the message of its panic if it panics.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = message_of(&*payload).to_owned();
        // The payload comes from the app, too, and its destructor may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        message
    })
}

/// Drops what came from the app. A panic in its destructor is logged.
pub(crate) fn discard<T>(value: T) {
    if let Err(panic) = catch(|| drop(value)) {
        crate::log::error!(panic, "the app's code panicked in a destructor");
    }
}

/// A value of the app. A panic of its destructor is logged, wherever it is dropped.
pub(crate) struct AppValue<T>(Option<T>);

impl<T> AppValue<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Some(value))
    }

    pub(crate) fn into_inner(mut self) -> T {
        let Some(value) = self.0.take() else { unreachable!("only a move takes it") };
        value
    }
}

impl<T> Deref for AppValue<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let Some(value) = &self.0 else { unreachable!("only a move takes it") };
        value
    }
}

impl<T> Drop for AppValue<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            discard(value);
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// Returns a future that contains panics of `work` and returns their message. A panic while `work`
/// is dropped is contained too.
pub(crate) fn unwind<F: Future>(work: F) -> Unwind<F> {
    Unwind { work: Some(Box::pin(work)) }
}

/// The future that [`unwind`] returns.
pub(crate) struct Unwind<F> {
    /// `None` once it has ended or was dropped.
    work: Option<Pin<Box<F>>>,
}

impl<F> Unwind<F> {
    /// Drops the work. Returns the message of its panic if that panics.
    pub(crate) fn discard(&mut self) -> Result<(), String> {
        let work = self.work.take();
        catch(|| drop(work))
    }
}

impl<F: Future> Future for Unwind<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        match catch(|| work.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(self.discard().map(|()| output)),
            Err(panic) => {
                // The first panic is the cause.
                let _ = self.discard();
                Poll::Ready(Err(panic))
            }
        }
    }
}

impl<F> Drop for Unwind<F> {
    fn drop(&mut self) {
        discard(self.work.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, task::Waker};

    /// Panics when it is dropped.
    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped, on purpose");
        }
    }

    // A readiness check that timed out and panicked while it was dropped ended the task that
    // repeats the check.
    #[test]
    fn a_panic_costs_only_the_code_it_is_in() {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut waits = unwind(async {
            let _held = PanicsOnDrop;
            pending::<()>().await;
        });
        assert!(Pin::new(&mut waits).poll(cx).is_pending());
        assert_eq!(waits.discard(), Err("dropped, on purpose".to_owned()));
        let mut waits = unwind(async {
            let _held = PanicsOnDrop;
            pending::<()>().await;
        });
        assert!(Pin::new(&mut waits).poll(cx).is_pending());
        drop(waits);
        let payload = catch(|| std::panic::panic_any(PanicsOnDrop));
        assert_eq!(payload, Err("(no message)".to_owned()));
    }
}
