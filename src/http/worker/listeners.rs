//! The listeners of a worker. They take turns, so that a flood on one does not starve another.

use crate::runtime::{Address, Listener, QuiesceOutcome};
use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
};

pub(super) struct Listeners<L> {
    sockets: Vec<Socket<L>>,
    first: usize,
}

struct Socket<L> {
    listener: L,
    local: Arc<Address>,
}

/// The result of an accept, and the address of the listener that it came from.
pub(super) struct AcceptedSocket<T> {
    pub(super) result: io::Result<(T, Address)>,
    pub(crate) local: Arc<Address>,
}

impl<L: Listener> Listeners<L> {
    pub(super) fn new(listeners: Vec<L>) -> Self {
        let socket = |listener: L| Socket { local: Arc::new(listener.local()), listener };
        Self { sockets: listeners.into_iter().map(socket).collect(), first: 0 }
    }

    /// Returns the next connection of any listener, or `None` if none is ready.
    pub(super) async fn accept_ready(&mut self) -> Option<AcceptedSocket<L::Io>> {
        poll_fn(|cx| match self.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<AcceptedSocket<L::Io>> {
        let count = self.sockets.len();
        for n in 0..count {
            let index = (self.first + n) % count;
            let socket = &mut self.sockets[index];
            if let Poll::Ready(result) = socket.listener.poll_accept(cx) {
                self.first = (index + 1) % count;
                return Poll::Ready(AcceptedSocket { result, local: socket.local.clone() });
            }
        }
        Poll::Pending
    }

    /// Whether other processes listen on the port of one of them.
    pub(super) fn have_shared_port(&self) -> bool {
        self.sockets.iter().any(|socket| socket.listener.is_port_shared())
    }

    /// Drops the inherited sockets. Their queues are left to the process that inherits them next.
    pub(super) fn leave_inherited(&mut self) {
        self.sockets.retain(|socket| !socket.listener.is_inherited());
    }

    /// Keeps new connections out, and keeps those that the kernel has completed.
    pub(super) fn quiesce(&mut self) {
        for socket in &mut self.sockets {
            if let QuiesceOutcome::Open(reason) = socket.listener.quiesce() {
                let reason =
                    reason.map_or_else(|| "not supported".to_owned(), |error| error.to_string());
                crate::log::warn!(
                    address = %socket.local,
                    reason,
                    "cannot block new connections while the accept queue is emptied; some may be reset"
                );
            }
        }
    }

    /// Returns the number of handshakes in progress for each listener. The iterator
    /// queries the kernel lazily.
    pub(super) fn handshakes(&self) -> impl Iterator<Item = Option<usize>> {
        self.sockets.iter().map(|socket| socket.listener.handshakes())
    }

    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }
}

/// Whether a failed accept concerns one connection, which is gone, and not the process.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::{Listeners, QuiesceOutcome};
    use crate::{
        http::connection::polls::script::Script,
        runtime::{Address, Listener, NoIdlePoller},
    };
    use std::{
        io,
        path::Path,
        task::{Context, Poll, Waker},
    };

    /// A listener at which connections are always ready.
    #[derive(Debug)]
    struct Flooded {
        path: &'static str,
        is_inherited: bool,
    }

    impl Listener for Flooded {
        type Io = Script;
        type IdlePoller = NoIdlePoller<Script>;

        fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(Script, Address)>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
        }

        fn local(&self) -> Address {
            Address::Unix(Some(Path::new(self.path).into()))
        }

        fn is_inherited(&self) -> bool {
            self.is_inherited
        }

        fn quiesce(&mut self) -> QuiesceOutcome {
            QuiesceOutcome::Sealed
        }
    }

    /// Accepts six times. Returns the paths of the listeners.
    fn accept_six(listeners: &mut Listeners<Flooded>) -> Vec<String> {
        let mut next = || {
            let Poll::Ready(accepted) =
                listeners.poll_accept(&mut Context::from_waker(Waker::noop()))
            else {
                unreachable!("connections are ready")
            };
            accepted.local.to_string()
        };
        (0..6).map(|_| next()).collect()
    }

    // At the connection limit the clients of one address took every place that became free (P15).
    #[test]
    fn listeners_take_turns() {
        let all = ["a", "b", "c"].map(|path| Flooded { path, is_inherited: false });
        let locals = accept_six(&mut Listeners::new(all.into()));
        assert_eq!(locals[..3], locals[3..]);
        assert!(locals[0] != locals[1] && locals[1] != locals[2] && locals[2] != locals[0]);
    }

    // The process that stops emptied the queue of a socket that its successor inherits, and closed
    // what the successor was to serve (P5a).
    #[test]
    fn the_queue_of_an_inherited_socket_is_left_to_the_successor() {
        let [own, inherited] = [("own", false), ("inherited", true)]
            .map(|(path, is_inherited)| Flooded { path, is_inherited });
        let mut listeners = Listeners::new(vec![own, inherited]);
        let before = accept_six(&mut listeners);
        assert!(before.iter().any(|local| local.contains("inherited")), "{before:?}");
        listeners.leave_inherited();
        let after = accept_six(&mut listeners);
        assert!(after.iter().all(|local| local.contains("own")), "{after:?}");
    }
}
