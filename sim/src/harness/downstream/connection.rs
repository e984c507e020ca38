//! The service's end of a connection to a downstream, with the downstream's faults.

use super::{HOST, Schedule, schedule::Wait};
use crate::{
    client::pause,
    network::{AnyHost, BoxStream},
    scenario::DownstreamFault,
};
use bytes::Bytes;
use hyper_util::client::legacy::connect::{Connected, Connection as HyperConnection};
use std::{
    fmt,
    future::pending,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A port on which no downstream listens.
const NO_PORT: u16 = 9;

/// How much later a slow downstream responds.
const SLOW: Duration = Duration::from_millis(700);

/// Connects, unless the downstream has a fault at this moment.
pub(super) async fn connect(
    network: &dyn AnyHost,
    port: u16,
    schedule: Arc<Schedule>,
) -> io::Result<Connection> {
    let gone = || Err(io::ErrorKind::BrokenPipe.into());
    // What an exited process has left must not count as an effect of a fault.
    if schedule.is_gone() {
        return gone();
    }
    schedule.note_connect();
    let port = match schedule.fault() {
        None | Some(DownstreamFault::Resets | DownstreamFault::Stalls) => port,
        Some(DownstreamFault::Slow) => {
            schedule.note("is slow to accept a connection");
            pause(SLOW).await;
            port
        }
        Some(DownstreamFault::Refuses) => {
            schedule.note("refuses a connection");
            NO_PORT
        }
        Some(DownstreamFault::Gone) => {
            schedule.note("does not answer a connect");
            while schedule.fault() == Some(DownstreamFault::Gone) {
                match schedule.next_change() {
                    Some(change) => change.await,
                    None => pending().await,
                }
            }
            port
        }
    };
    if schedule.is_gone() {
        return gone();
    }
    let stream = network.connect(HOST, port).await?;
    let opened = schedule.opened();
    Ok(Connection { stream, schedule, opened, wait: None, noted: false, slow: None })
}

/// A connection from your service to a [`Downstream`](super::Downstream): a byte stream, for a
/// client such as `tokio_postgres::Config::connect_raw`.
pub struct Connection {
    stream: BoxStream,
    schedule: Arc<Schedule>,
    /// When it was opened, in the time of the faults.
    opened: Duration,
    /// Wakes the reader when a fault begins or ends.
    wait: Option<Wait>,
    /// Whether the current fault was recorded.
    noted: bool,
    /// What has arrived from a slow downstream.
    slow: Option<Slow>,
}

/// Bytes that are read later than they have arrived.
struct Slow {
    bytes: Bytes,
    wait: Option<Wait>,
}

impl Slow {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<()> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        buffer.put_slice(&self.bytes.split_to(self.bytes.len().min(buffer.remaining())));
        Poll::Ready(())
    }
}

impl Connection {
    /// Returns an error if the downstream has reset the connection, or the process has exited.
    fn check(&mut self) -> io::Result<()> {
        if self.schedule.is_gone() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let resets = self.schedule.fault().is_some_and(DownstreamFault::resets)
            || self.schedule.has_reset_since(self.opened);
        if !resets {
            return Ok(());
        }
        self.note("resets a connection");
        self.stream.reset_on_drop();
        Err(io::ErrorKind::ConnectionReset.into())
    }

    fn note(&mut self, what: &'static str) {
        if !self.noted {
            self.noted = true;
            self.schedule.note(what);
        }
    }

    /// Waits until a fault begins or ends. Returns `Pending` if none will.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wait.is_none() {
            self.wait = self.schedule.next_change();
        }
        let Some(wait) = &mut self.wait else { return Poll::Pending };
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        self.noted = false;
        Poll::Ready(())
    }

    /// Whether the current fault lets nothing arrive.
    fn is_silent(&self) -> bool {
        matches!(self.schedule.fault(), Some(DownstreamFault::Stalls | DownstreamFault::Gone))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.check()?;
            if this.is_silent() {
                this.note("does not respond");
                ready!(this.poll_change(cx));
                continue;
            }
            if let Some(slow) = &mut this.slow {
                ready!(slow.poll_read(cx, buffer));
                this.slow = this.slow.take().filter(|slow| !slow.bytes.is_empty());
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            if Pin::new(&mut this.stream).poll_read(cx, buffer)?.is_pending() {
                ready!(this.poll_change(cx));
                continue;
            }
            if this.schedule.fault() != Some(DownstreamFault::Slow) {
                return Poll::Ready(Ok(()));
            }
            this.note("is slow to respond");
            let bytes = Bytes::copy_from_slice(&buffer.filled()[before..]);
            buffer.set_filled(before);
            this.slow = Some(Slow { bytes, wait: Some(Box::pin(pause(SLOW))) });
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl HyperConnection for Connection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::connect;
    use crate::{
        harness::{
            downstream::{EFFECT, Schedule, Serving},
            proof::CONNECTS,
        },
        network::{AnyHost, AnyListener, BoxStream, IoFuture},
        scenario::{DownstreamFault, Fault},
        trace::Trace,
    };
    use std::{
        future::ready,
        io::ErrorKind,
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Waker},
        time::Duration,
    };
    use tokio_util::sync::CancellationToken;

    /// A network that refuses every connection.
    #[derive(Debug)]
    struct Refusing;

    impl AnyHost for Refusing {
        fn connect(&self, _: &'static str, _: u16) -> IoFuture<BoxStream> {
            Box::pin(ready(Err(ErrorKind::ConnectionRefused.into())))
        }

        fn listen(&self, _: u16) -> IoFuture<Box<dyn AnyListener>> {
            Box::pin(ready(Err(ErrorKind::Unsupported.into())))
        }
    }

    // A task that an exited process had left met a fault of a downstream, and that excused every
    // later error of the service (D5).
    #[test]
    fn a_connect_of_an_exited_process_meets_no_fault() {
        let refuses = DownstreamFault::Refuses;
        let fault = Fault::Downstream { downstream: 0, at_ms: 0, for_ms: 9, how: refuses };
        for (has_exited, error, effects) in
            [(false, ErrorKind::ConnectionRefused, 1), (true, ErrorKind::BrokenPipe, 0)]
        {
            let (trace, gone) = (Trace::new(), CancellationToken::new());
            trace.begin(Box::new(|| Some(Duration::ZERO)));
            let (serving, count) = (Serving::at_once(), Arc::default());
            let schedule = Schedule::new("db", trace.clone(), serving, &[fault], 0, count);
            if has_exited {
                gone.cancel();
            }
            let connecting = connect(&Refusing, 1, Arc::new(schedule.until(Some(gone))));
            let Poll::Ready(connected) =
                pin!(connecting).poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("the connect waits")
            };
            assert_eq!(connected.unwrap_err().kind(), error);
            let counts = [EFFECT, CONNECTS].map(|event| trace.events(event).len());
            assert_eq!(counts, [effects; 2], "{has_exited}");
        }
    }
}
