//! The four signals that request a stop.

use super::TokioClock;
use crate::{
    lifecycle::Signal,
    runtime::{Clock, SignalSource, Sleep},
};
use nix::sys::signal::{SigSet, Signal as Unix};
use std::{
    fmt,
    fs::File,
    future::poll_fn,
    io::{self, Read as _},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::signal::unix::{self, SignalKind};

/// Blocks the four signals until [`UnixSignals::install`] unblocks them on the same thread. No
/// signal that arrives in between is lost, not even in process 1 of a container, for which the
/// kernel discards signals without a handler. Call it before anything else, while there is only one
/// thread. Threads that start before the unblocking inherit the block and leave these signals to
/// this thread.
pub fn block_signals() {
    // Cannot fail: the set is valid.
    let _ = stop_signals().thread_block();
}

fn stop_signals() -> SigSet {
    SigSet::from_iter([Unix::SIGTERM, Unix::SIGINT, Unix::SIGQUIT, Unix::SIGHUP])
}

/// Receives SIGTERM, SIGINT, SIGQUIT and SIGHUP from its creation on.
///
/// Keep it until the process ends. tokio never restores a signal's default action, so after a drop
/// these four would have no effect and a second Ctrl-C would do nothing. A signal that arrives
/// twice before it is received counts once, as usual for signals. Of several pending signals,
/// SIGINT and SIGQUIT are reported first. The order of arrival is unknown, and as the first signal
/// they do the least harm: as further ones they would end a wait (P12). So a SIGTERM or SIGHUP is
/// reported only after 2 ms.
pub struct UnixSignals {
    /// SIGINT and SIGQUIT come first: as further signals they end a wait.
    streams: Vec<(Signal, unix::Signal)>,
    /// A SIGTERM or SIGHUP that is held back for an interrupt that was sent with it, and the end of
    /// that. Any runtime of the process may pass a signal on, so two signals can arrive in either
    /// order.
    held: Option<(Signal, Pin<Box<dyn Sleep>>)>,
}

/// How long a signal is held: the time that the kernel and the runtimes may need to pass on signals
/// sent together.
const COALESCE_WINDOW: Duration = Duration::from_millis(2);

impl UnixSignals {
    /// Installs the four handlers. Call it before anything is bound: process 1 of a container has
    /// no default actions, and would ignore signals until then (P14).
    ///
    /// SIGHUP stays ignored if it was ignored when the process started, as under `nohup`. SIGINT
    /// and SIGQUIT do not: a shell without job control starts every background job with both
    /// ignored, and they must still stop it.
    ///
    /// The handlers report to the current tokio runtime. It must have I/O enabled, and
    /// [`recv`](SignalSource::recv) must be awaited on it. The calling thread unblocks the four
    /// signals, even if the parent process had blocked them.
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
        // `block_signals` or the parent process may have blocked them. A blocked signal is
        // inherited, and would never arrive.
        stop_signals().thread_unblock()?;
        Ok(Self { streams, held: None })
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.streams {
            // A held signal is reported before other SIGTERMs and SIGHUPs, and after interrupts.
            if !signal.is_impatient() && self.held.is_some() {
                break;
            }
            // A stream that ended receives nothing more; the others still do.
            if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                if signal.is_impatient() {
                    return Poll::Ready(*signal);
                }
                let clock = TokioClock::new();
                self.held = Some((*signal, clock.sleep_until(clock.now() + COALESCE_WINDOW)));
            }
        }
        let Some((signal, wait)) = &mut self.held else { return Poll::Pending };
        let signal = *signal;
        ready!(wait.as_mut().poll(cx));
        self.held = None;
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

    fn is_holding(&self) -> bool {
        self.held.is_some()
    }
}

/// Returns whether SIGHUP is ignored now, by proc_pid_stat(5); no, where that cannot be read.
fn is_hangup_ignored() -> bool {
    // The kernel takes twice as long for the other file that has it.
    let mut stat = [0; 2048];
    let read = File::open("/proc/self/stat").and_then(|mut file| file.read(&mut stat));
    read.is_ok_and(|read| ignores(&stat[..read], Unix::SIGHUP))
}

/// Returns whether the process of this `/proc/pid/stat` ignores a signal of the first 31.
fn ignores(stat: &[u8], signal: Unix) -> bool {
    const IGNORED: usize = 33;
    const AFTER_NAME: usize = 3;
    // The name, in parentheses, may contain anything.
    let after_name = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let mut fields = std::str::from_utf8(after_name).unwrap_or_default().split_ascii_whitespace();
    let ignored = fields.nth(IGNORED - AFTER_NAME).and_then(|mask| mask.parse::<u64>().ok());
    ignored.is_some_and(|ignored| ignored & (1 << (signal as u64 - 1)) != 0)
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

#[cfg(test)]
mod tests {
    use super::{Unix, ignores};

    #[test]
    fn an_ignored_signal_is_found_whatever_the_name_is() {
        // The first 32 fields; the signals that are ignored; one more.
        let stat = |ignored: u64| {
            let others = " 0".repeat(29);
            format!("42 (a) 1 2 (b) S{others} {ignored} 4").into_bytes()
        };
        assert!(ignores(&stat(1), Unix::SIGHUP));
        assert!(!ignores(&stat(1 << 14), Unix::SIGHUP) && ignores(&stat(1 << 14), Unix::SIGTERM));
        assert!(!ignores(b"42 (cut", Unix::SIGHUP));
    }
}
