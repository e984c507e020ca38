//! Moves packets. A pump sleeps until a packet is due or a socket operation was done.
//!
//! ```text
//!  socket op ──wake──▶ egress ──latency──▶ in flight ──due──▶ deliver ──▶ kernel of the receiver
//!                                             │  ▲                          (may respond: egress)
//!                                  link held  ▼  │ released, or the filter's retry
//!                                           held back
//! ```
//! A packet's latency is drawn from the seed. Packets of one direction between two hosts never
//! overtake each other. A held link keeps due packets in order. A SYN to a sealed address is
//! dropped, as by the filter on Linux, and is sent again after 1 s, 2 s, 4 s. This stands for the
//! client's retransmission, which the simulated kernel does not have.
//!
//! Bytes that arrive at a closed socket reset its connection, as on Linux. The simulated kernel
//! alone would accept them until the peer closes, too.
//!
//! A listener that closes is not closed in the kernel: the kernel would not bind its port again
//! while one of its connections is open. The listener is retired instead. The connections in its
//! queue are reset, new ones are refused, and the next listener on the port reuses it.

use super::wakeup::ReadinessDelay;
use crate::trace::{Direction, Trace};
use lameduck::runtime::Seed;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use turmoil_net::{
    EnterGuard, HostId, Packet, TcpSegment, Transport, shim::tokio::net::TcpListener,
};

/// A client's first wait before it sends an unanswered SYN again (Linux: 1 s, then doubled).
const SYN_RETRY: Duration = Duration::from_secs(1);

/// The kernel's receive buffer. Each read takes all bytes, so a sender can be up to twice this
/// ahead of its reader.
///
/// It must not be smaller. The first window of a connection is 65,535 bytes whatever the buffer is,
/// and bytes that do not fit are lost.
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;

/// A link between two hosts, the lesser address first.
type Link = (IpAddr, IpAddr);

/// State of the network, shared by its sockets and the pump.
#[derive(Debug)]
pub(super) struct Fabric {
    guard: Weak<EnterGuard>,
    stirred: Notify,
    state: Mutex<State>,
    scratch: Mutex<Box<[u8]>>,
    readiness_delay: Arc<ReadinessDelay>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Link, VecDeque<PacketInFlight>>,
    released: VecDeque<PacketInFlight>,
    sealed: BTreeSet<SocketAddr>,
    retired: BTreeMap<SocketAddr, (HostId, TcpListener)>,
    /// Closed sockets whose peer has not closed yet: their address and the peer's.
    closed: BTreeSet<(SocketAddr, SocketAddr)>,
    outbox: Vec<Packet>,
}

/// A packet in flight.
#[derive(Debug)]
struct PacketInFlight {
    packet: Packet,
    /// Number of earlier attempts to send it.
    attempts: u32,
}

impl Fabric {
    pub(super) fn new(guard: &Arc<EnterGuard>, readiness_delay: Arc<ReadinessDelay>) -> Self {
        Self {
            guard: Arc::downgrade(guard),
            stirred: Notify::new(),
            state: Mutex::default(),
            scratch: Mutex::new(vec![0; RECEIVE_BUFFER].into()),
            readiness_delay,
        }
    }

    pub(super) fn readiness_delay(&self) -> Arc<ReadinessDelay> {
        Arc::clone(&self.readiness_delay)
    }

    /// Runs `operation` on a socket of `host` and wakes the pump. Returns `None` after the end of
    /// the world.
    pub(super) fn on<R>(&self, host: HostId, operation: impl FnOnce() -> R) -> Option<R> {
        let guard = self.guard.upgrade()?;
        guard.set_current(host);
        let result = operation();
        self.stirred.notify_one();
        Some(result)
    }

    /// Runs `inspect`, which sends nothing, on a socket of `host`. Returns `None` after the end of
    /// the world.
    pub(super) fn inspect<R>(&self, host: HostId, inspect: impl FnOnce() -> R) -> Option<R> {
        let guard = self.guard.upgrade()?;
        guard.set_current(host);
        Some(inspect())
    }

    /// Wakes the pump.
    pub(super) fn wake_pump(&self) {
        self.stirred.notify_one();
    }

    /// Buffer large enough for all bytes that a socket may have received, for one read.
    pub(super) fn scratch(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, a: IpAddr, b: IpAddr) {
        self.lock().held.entry(link(a, b)).or_default();
    }

    pub(super) fn release(&self, a: IpAddr, b: IpAddr) {
        let mut state = self.lock();
        if let Some(flights) = state.held.remove(&link(a, b)) {
            state.released.extend(flights);
        }
        drop(state);
        self.stirred.notify_one();
    }

    /// Drops the SYNs of new connections to `address`.
    pub(super) fn seal(&self, address: SocketAddr) {
        self.lock().sealed.insert(address);
    }

    pub(super) fn unseal(&self, address: SocketAddr) {
        self.lock().sealed.remove(&address);
    }

    /// Closes a listener by retiring it.
    pub(super) fn retire(&self, address: SocketAddr, host: HostId, listener: TcpListener) {
        self.lock().retired.insert(address, (host, listener));
        self.reset_queued(address);
    }

    /// Takes the retired listener at `address`, so that it can listen again.
    pub(super) fn reinstate(&self, address: SocketAddr) -> Option<TcpListener> {
        self.lock().retired.remove(&address).map(|(_, listener)| listener)
    }

    /// Resets the connections in the queue of a retired listener.
    fn reset_queued(&self, address: SocketAddr) {
        loop {
            let accepted = {
                let state = self.lock();
                let Some((host, listener)) = state.retired.get(&address) else { return };
                self.on(*host, || listener.poll_accept(&mut Context::from_waker(Waker::noop())))
                    .map(|it| (*host, it))
            };
            let Some((host, Poll::Ready(Ok((stream, peer))))) = accepted else { return };
            self.reset(address, peer);
            self.on(host, || drop(stream));
        }
    }

    /// Drops the sockets that only the fabric owns. Must be called while the network still exists.
    pub(super) fn end(&self) {
        let retired = std::mem::take(&mut self.lock().retired);
        for (host, listener) in retired.into_values() {
            self.on(host, || drop(listener));
        }
    }

    /// Breaks a connection as `SO_LINGER` with zero does: only an RST is sent. The kernel has no
    /// such option, so the fabric delivers an RST to the local end and sends one to the peer.
    pub(super) fn reset(&self, local: SocketAddr, peer: SocketAddr) {
        if let Some(guard) = self.guard.upgrade() {
            guard.deliver(rst(peer, local));
            self.lock().outbox.push(rst(local, peer));
            self.stirred.notify_one();
        }
    }

    /// Records that the local end of a connection was closed without an RST.
    pub(super) fn close(&self, local: SocketAddr, peer: SocketAddr) {
        self.lock().closed.insert((local, peer));
    }

    /// Returns the local end and the peer if a packet has bytes for an end that is closed. Forgets
    /// ends whose connection is over.
    fn closed_end_of(&self, packet: &Packet) -> Option<(SocketAddr, SocketAddr)> {
        let Transport::Tcp(segment) = &packet.payload else { return None };
        let is_over = segment.flags.rst || segment.flags.fin || segment.flags.syn;
        let has_bytes = !segment.payload.is_empty();
        let (peer, local) = ends(packet).filter(|_| is_over || has_bytes)?;
        let was_closed = self.lock().closed.remove(&(local, peer));
        (was_closed && has_bytes).then_some((local, peer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the packets of one world.
pub(super) struct Pump {
    guard: Arc<EnterGuard>,
    fabric: Arc<Fabric>,
    trace: Trace,
    /// When the world began.
    epoch: Instant,
    seed: Seed,
    latency_min_ms: u64,
    latency_max_ms: u64,
    draws: u64,
    sent: u64,
    in_flight: BTreeMap<(Instant, u64), PacketInFlight>,
    latest: BTreeMap<(IpAddr, IpAddr), Instant>,
    egress: Vec<Packet>,
}

impl Pump {
    pub(super) fn new(
        guard: Arc<EnterGuard>,
        fabric: Arc<Fabric>,
        (trace, epoch): (Trace, Instant),
        seed: Seed,
        latency: (Duration, Duration),
    ) -> Self {
        Self {
            guard,
            fabric,
            trace,
            epoch,
            seed,
            latency_min_ms: millis(latency.0),
            latency_max_ms: millis(latency.1.max(latency.0)),
            draws: 0,
            sent: 0,
            in_flight: BTreeMap::new(),
            latest: BTreeMap::new(),
            egress: Vec::new(),
        }
    }

    /// Moves packets for ever.
    #[expect(
        clippy::disallowed_methods,
        reason = "the network's time is the world's, not a host's"
    )]
    pub(super) async fn run(mut self) {
        let fabric = Arc::clone(&self.fabric);
        let mut sleep = pin!(tokio::time::sleep_until(Instant::now()));
        loop {
            let now = Instant::now();
            self.deliver_released();
            self.deliver_due(now);
            self.send_egress(now);
            match self.in_flight.first_key_value().map(|((due, _), _)| *due) {
                Some(due) if due <= now => {}
                Some(due) => {
                    if sleep.deadline() != due {
                        sleep.as_mut().reset(due);
                    }
                    tokio::select! {
                        biased;
                        () = fabric.stirred.notified() => {}
                        () = &mut sleep => {}
                    }
                }
                None => fabric.stirred.notified().await,
            }
        }
    }

    /// Released packets were due in the past, so they arrive before any packet in flight.
    fn deliver_released(&mut self) {
        let released = std::mem::take(&mut self.fabric.lock().released);
        for flight in released {
            self.arrive(flight, Instant::now());
        }
    }

    fn deliver_due(&mut self, now: Instant) {
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let flight = entry.remove();
            self.arrive(flight, now);
        }
    }

    fn arrive(&mut self, flight: PacketInFlight, now: Instant) {
        {
            let mut state = self.fabric.lock();
            if let Some(held) = state.held.get_mut(&link(flight.packet.src, flight.packet.dst)) {
                held.push_back(flight);
                return;
            }
            if let Some((client, address)) = bare_syn(&flight.packet) {
                if state.sealed.contains(&address) {
                    drop(state);
                    let due = now + SYN_RETRY * 2_u32.saturating_pow(flight.attempts.min(6));
                    self.fly(
                        due,
                        PacketInFlight { packet: flight.packet, attempts: flight.attempts + 1 },
                    );
                    return;
                }
                if state.retired.contains_key(&address) {
                    state.outbox.push(rst(address, client));
                    return;
                }
            }
        }
        self.note(now, Direction::Received, &flight.packet);
        if let Some((local, peer)) = self.fabric.closed_end_of(&flight.packet) {
            return self.fabric.reset(local, peer);
        }
        let address = ends(&flight.packet).map(|(_, to)| to);
        self.guard.deliver(flight.packet);
        // A handshake may have been in progress when the listener was retired.
        if let Some(address) = address {
            self.fabric.reset_queued(address);
        }
    }

    /// Takes the packets that the kernels want to send, and draws a latency for each.
    fn send_egress(&mut self, now: Instant) {
        let mut packets = std::mem::take(&mut self.egress);
        packets.append(&mut self.fabric.lock().outbox);
        self.guard.egress_all(&mut packets);
        for packet in packets.drain(..) {
            self.note(now, Direction::Sent, &packet);
            let latest = self.latest.entry((packet.src, packet.dst)).or_insert(now);
            let span = self.latency_max_ms - self.latency_min_ms + 1;
            let latency = self.latency_min_ms + self.seed.nth(self.draws) % span;
            self.draws += 1;
            let due = (now + Duration::from_millis(latency)).max(*latest);
            *latest = due;
            self.fly(due, PacketInFlight { packet, attempts: 0 });
        }
        self.egress = packets;
    }

    fn fly(&mut self, due: Instant, flight: PacketInFlight) {
        self.in_flight.insert((due, self.sent), flight);
        self.sent += 1;
    }

    fn note(&self, now: Instant, direction: Direction, packet: &Packet) {
        if let Transport::Tcp(segment) = &packet.payload {
            let flags =
                [segment.flags.syn, segment.flags.ack, segment.flags.fin, segment.flags.rst];
            let bits = flags.iter().fold(0, |bits, flag| bits << 1 | u64::from(*flag));
            let ports =
                u64::from(segment.src_port) << 32 | u64::from(segment.dst_port) << 16 | bits;
            self.trace.packet(
                now - self.epoch,
                &[number(packet.src), number(packet.dst), ports],
                direction,
                &segment.payload,
            );
        }
    }
}

fn link(a: IpAddr, b: IpAddr) -> Link {
    (a.min(b), a.max(b))
}

/// Returns the source and destination of a packet that is a SYN without an ACK.
fn bare_syn(packet: &Packet) -> Option<(SocketAddr, SocketAddr)> {
    match &packet.payload {
        Transport::Tcp(segment) if segment.flags.syn && !segment.flags.ack => ends(packet),
        Transport::Tcp(_) | Transport::Udp(_) => None,
    }
}

/// Returns the source and destination of a TCP packet.
fn ends(packet: &Packet) -> Option<(SocketAddr, SocketAddr)> {
    match &packet.payload {
        Transport::Tcp(segment) => Some((
            SocketAddr::new(packet.src, segment.src_port),
            SocketAddr::new(packet.dst, segment.dst_port),
        )),
        Transport::Udp(_) => None,
    }
}

fn rst(from: SocketAddr, to: SocketAddr) -> Packet {
    let flags = turmoil_net::TcpFlags { rst: true, ..turmoil_net::TcpFlags::default() };
    let segment = TcpSegment {
        src_port: from.port(),
        dst_port: to.port(),
        seq: 0,
        ack: 0,
        flags,
        window: 0,
        payload: bytes::Bytes::new(),
    };
    Packet { src: from.ip(), dst: to.ip(), ttl: 64, payload: Transport::Tcp(segment) }
}

/// Returns the low 64 bits of the address. Simulated hosts differ in these.
fn number(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        // Truncation is intended.
        IpAddr::V6(ip) => ip.to_bits() as u64,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
