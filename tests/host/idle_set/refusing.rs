//! P15: an idle set that refuses a connection.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::{hello, outcomes};
use crate::support::{Client, End, aside, block, until_holds};
use axum::body::Bytes;
use lameduck::{
    lifecycle::Signal,
    os::{
        CurrentRuntime, EpollPoller, IdleSocket, OsListener, OsNetwork, OsReservation, TokioClock,
    },
    runtime::{
        Address, IdlePoller, ListenAddress, Listener, Network, QuiesceOutcome, Reservation,
        Runtime, Seed, ServerRole, SignalSource,
    },
};
use std::{
    io::{self},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    time::Duration,
};

/// The system's network with idle pollers that refuse every connection and count the attempts.
#[derive(Clone, Debug)]
struct Refusing {
    network: OsNetwork,
    asked: Arc<AtomicUsize>,
    bound: mpsc::Sender<SocketAddr>,
}

#[derive(Debug)]
struct Refused<T>(T, Refusing);

impl Network for Refusing {
    type Listener = Refused<OsListener>;
    type Reservation = Refused<OsReservation>;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Refused<OsReservation>> {
        let reservation = self.network.reserve(address, role, listeners)?;
        self.bound.send(reservation.local().tcp().unwrap()).unwrap();
        Ok(Refused(reservation, self.clone()))
    }
}

impl Reservation for Refused<OsReservation> {
    type Listener = Refused<OsListener>;

    fn local(&self) -> Address {
        self.0.local()
    }

    async fn listen(self) -> io::Result<Vec<Refused<OsListener>>> {
        let Self(reservation, refusing) = self;
        let listeners = reservation.listen().await?;
        Ok(listeners.into_iter().map(|listener| Refused(listener, refusing.clone())).collect())
    }
}

impl Listener for Refused<OsListener> {
    type Io = <OsListener as Listener>::Io;
    type IdlePoller = Refused<EpollPoller>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        self.0.poll_accept(cx)
    }

    fn local(&self) -> Address {
        self.0.local()
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        self.0.quiesce()
    }

    fn idle_poller(&self) -> Option<Refused<EpollPoller>> {
        self.0.idle_poller().map(|poller| Refused(poller, self.1.clone()))
    }
}

impl IdlePoller for Refused<EpollPoller> {
    type Io = <EpollPoller as IdlePoller>::Io;
    type Idle = IdleSocket;

    fn insert(&mut self, io: Self::Io, _: usize) -> Result<IdleSocket, Self::Io> {
        self.1.asked.fetch_add(1, SeqCst);
        Err(io)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        self.0.poll_ready(cx, found)
    }

    fn remove(&mut self, idle: IdleSocket) -> io::Result<(Self::Io, Bytes)> {
        self.0.remove(idle)
    }
}

/// A source without signals.
#[derive(Debug)]
struct Silence;

impl SignalSource for Silence {
    async fn recv(&mut self) -> Signal {
        std::future::pending().await
    }
}

// The kernel can refuse to watch another descriptor (ENOMEM, ENOSPC). A refused connection had been
// idle for long enough to be suspended, and so tried again at once, in a loop. One idle connection
// used a whole core. It must not try again.
#[test]
fn a_connection_that_the_idle_set_refuses_does_not_try_again_in_a_loop() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (bound, addresses) = mpsc::channel();
    let network = Refusing { network: OsNetwork::default(), asked: asked.clone(), bound };
    let host = hello();
    let stop = host.shutdown_handle();
    let server = aside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let spawner = CurrentRuntime::new(tokio::runtime::Handle::current());
            host.run_in(Runtime {
                clock: Arc::new(TokioClock::new()),
                network,
                signals: Silence,
                spawner,
                seed: Seed(7),
            })
            .await
        })
    });
    let main = addresses.recv().unwrap();
    let mut client = crate::support::until("the host", || Client::try_connect(main).ok());
    assert_eq!(client.get("/").body(), "hello");
    until_holds("a refusal", || asked.load(SeqCst) > 0);
    block(Duration::from_millis(300));
    let asked = asked.load(SeqCst);
    assert!(asked < 5, "asked {asked} times");
    assert_eq!(client.get("/").body(), "hello");
    stop.stop();
    assert_eq!(outcomes(&server.join().unwrap()), [2, 2, 0, 0, 0]);
    assert_eq!(client.end(), End::Closed);
}
