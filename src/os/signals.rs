//! The four signals that ask for a stop.

use crate::{env::SignalSource, lifecycle::Signal};
use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};
use tokio::signal::unix::{self, SignalKind};

/// Hears SIGTERM, SIGINT, SIGQUIT and SIGHUP from the moment it is made.
///
/// Keep it for the life of the process: tokio never puts a signal's default action back, so after a drop these four would be
/// swallowed and a second Ctrl-C would do nothing. A signal that comes twice before it is received counts once, as signals
/// do; of several that wait, SIGTERM is reported first, then SIGINT, SIGQUIT and SIGHUP.
#[derive(Debug)]
pub struct UnixSignals {
    heard: [(Signal, unix::Signal); Signal::ALL.len()],
}

impl UnixSignals {
    /// Puts the four handlers in place. Do it before anything is bound: process 1 of a container has no default action, and
    /// would be deaf until then (P14).
    ///
    /// They report to the tokio runtime that this is called on, which must have I/O enabled and must be the one that
    /// [`recv`](SignalSource::recv) is awaited on.
    ///
    /// # Errors
    /// If this is not called on a tokio runtime, or the system refuses a handler.
    ///
    /// # Panics
    /// If the runtime has no I/O enabled.
    pub fn install() -> io::Result<Self> {
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let [terminate, interrupt, quit, hangup] = Signal::ALL;
        Ok(Self { heard: [listen(terminate)?, listen(interrupt)?, listen(quit)?, listen(hangup)?] })
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.heard {
            // A stream that ended cannot hear any more; the others can.
            if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    }
}

impl SignalSource for UnixSignals {
    async fn recv(&mut self) -> Signal {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

fn listen(signal: Signal) -> io::Result<(Signal, unix::Signal)> {
    let kind = match signal {
        Signal::Terminate => SignalKind::terminate(),
        Signal::Interrupt => SignalKind::interrupt(),
        Signal::Quit => SignalKind::quit(),
        Signal::Hangup => SignalKind::hangup(),
    };
    Ok((signal, unix::signal(kind)?))
}
