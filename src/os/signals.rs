//! The four signals that ask for a stop.

use super::TokioClock;
use crate::{
    lifecycle::Signal,
    runtime::{Clock, SignalSource, Sleep},
};
use nix::sys::signal::{SigSet, Signal as Unix};
use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::signal::unix::{self, SignalKind};

/// Holds the four signals back until [`UnixSignals::install`] lets them through on the same thread: none that comes in between is
/// lost, not even to process 1 of a container, for which the kernel throws away what has no handler. Call it first of all, before
/// there is a second thread; threads that are made until then leave these signals to this one.
pub fn block_signals() {
    // It cannot fail: the set is a valid one.
    let _ = stop_signals().thread_block();
}

fn stop_signals() -> SigSet {
    SigSet::from_iter([Unix::SIGTERM, Unix::SIGINT, Unix::SIGQUIT, Unix::SIGHUP])
}

/// Hears SIGTERM, SIGINT, SIGQUIT and SIGHUP from the moment it is made.
///
/// Keep it for the life of the process: tokio never puts a signal's default action back, so after a drop these four would be
/// swallowed and a second Ctrl-C would do nothing. A signal that comes twice before it is received counts once, as signals
/// do; of several that wait, SIGINT and SIGQUIT are reported first. Nobody can know which came first; one that is taken for
/// the first does the least harm, since as a further one it would end a wait (P12). So the first SIGTERM or SIGHUP is reported after 2 ms.
pub struct UnixSignals {
    /// Those that are impatient as further ones first.
    streams: Vec<(Signal, unix::Signal)>,
    first: FirstSignal,
}

/// The first signal of all. A patient one waits a moment for an impatient one that was sent with it: each runtime of the process may be
/// the one that passes a signal on, so that two come in any order.
enum FirstSignal {
    Awaited,
    Held(Signal, Pin<Box<dyn Sleep>>),
    Reported,
}

/// How long it waits: what the kernel and the runtimes may need to pass on what was sent at once.
const COALESCE_WINDOW: Duration = Duration::from_millis(2);

impl UnixSignals {
    /// Puts the four handlers in place. Do it before anything is bound: process 1 of a container has no default action, and
    /// would be deaf until then (P14).
    ///
    /// SIGHUP stays ignored if it was when the process started, as `nohup` has it. SIGINT and
    /// SIGQUIT do not: a shell without job control starts every background job with both ignored,
    /// and they must still stop it.
    ///
    /// They report to the tokio runtime that this is called on, which must have I/O enabled and must be the one that
    /// [`recv`](SignalSource::recv) is awaited on. The calling thread takes the four even if whoever started the process had blocked them.
    ///
    /// # Errors
    /// If this is not called on a tokio runtime, or the system refuses a handler.
    ///
    /// # Panics
    /// If the runtime has no I/O enabled.
    pub fn install() -> io::Result<Self> {
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let [terminate, interrupt, quit, hangup] = Signal::ALL;
        let mut streams = vec![listen(interrupt)?, listen(quit)?, listen(terminate)?];
        if !is_hangup_ignored() {
            streams.push(listen(hangup)?);
        }
        // Held back by us, or by a parent: a blocked signal is inherited, and would never come.
        stop_signals().thread_unblock()?;
        Ok(Self { streams, first: FirstSignal::Awaited })
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.streams {
            // One that is held comes before others of its kind, and after those that are not.
            if !signal.is_impatient() && matches!(self.first, FirstSignal::Held(..)) {
                break;
            }
            // A stream that ended cannot hear any more; the others can.
            if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                if signal.is_impatient() && matches!(self.first, FirstSignal::Awaited) {
                    self.first = FirstSignal::Reported;
                }
                // One that is still held is a further one from then on.
                if signal.is_impatient() || matches!(self.first, FirstSignal::Reported) {
                    return Poll::Ready(*signal);
                }
                let clock = TokioClock::new();
                self.first =
                    FirstSignal::Held(*signal, clock.sleep_until(clock.now() + COALESCE_WINDOW));
            }
        }
        let FirstSignal::Held(signal, wait) = &mut self.first else { return Poll::Pending };
        let signal = *signal;
        ready!(wait.as_mut().poll(cx));
        self.first = FirstSignal::Reported;
        Poll::Ready(signal)
    }
}

impl fmt::Debug for UnixSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSignals").field("heard", &self.streams).finish_non_exhaustive()
    }
}

impl SignalSource for UnixSignals {
    async fn recv(&mut self) -> Signal {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

/// Whether SIGHUP is ignored now, by `proc(5)`; no, where that cannot be read.
fn is_hangup_ignored() -> bool {
    const HANGUP: u64 = 1 << (Unix::SIGHUP as u64 - 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & HANGUP != 0)
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
