//! Keeps new connections out of a listening TCP socket that still holds connections to be accepted
//! (P5a).
//!
//! The kernel completes handshakes itself and queues them until they are accepted. Closing the
//! listener resets the whole queue. Emptying the queue first races with connections that arrive in
//! between. So new connections are kept out first: a packet filter on the listening socket drops
//! every segment that requests a new connection. Handshakes in progress still complete, the queue
//! is accepted until it is empty, and only then the socket is closed. A client whose SYN was
//! dropped sends it again after a second. A successor on the port then accepts it, or the kernel
//! refuses it. No byte of its request was sent, so it loses time and no request.
//!
//! Accepted connections inherit the filter. It does not harm them: no segment of an established
//! connection is a bare SYN.
//!
//! Where a filter is forbidden, new connections go to another socket: see `decoy`.
//!
//! Neither is used on an inherited socket: a filter belongs to the socket, not to this process, and
//! would stay on it for ever.

#[cfg(target_os = "linux")]
use super::SpareFds;
use super::socket_options::SocketOptions;
use socket2::Socket;
use std::{io, net::SocketAddr, os::fd::BorrowedFd, sync::Arc};

/// Keeps new connections out of a port. Shared by the port's listeners; each holds it for longer
/// than its own socket.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    #[cfg(target_os = "linux")]
    decoys: super::decoy::Decoys,
    /// Descriptors for the seal itself: the process may have none left when it is asked to stop.
    #[cfg(target_os = "linux")]
    spares: Option<SpareFds>,
}

/// A socket to accept from in addition to the listener.
pub(super) type DecoyListener = Option<Arc<Socket>>;

#[cfg(target_os = "linux")]
impl Seal {
    /// Returns a seal for a port with `listeners` listeners.
    pub(super) fn new(listeners: usize, options: &SocketOptions) -> Self {
        Self { decoys: super::decoy::Decoys::new(listeners, options.clone()), spares: None }
    }

    /// Keeps descriptors back: one for each listener's decoy, and one to count handshakes.
    ///
    /// # Errors
    /// Errors of the system, if no descriptors are left.
    pub(super) fn with_spares(self, listeners: usize) -> io::Result<Self> {
        Ok(Self { spares: Some(SpareFds::new(listeners + 1)?), ..self })
    }

    /// Returns the number of handshakes in progress with `local`, if the kernel reports it.
    pub(super) fn handshakes(&self, local: SocketAddr) -> Option<usize> {
        let netlink = self.open(super::sock_diag::open).ok()?;
        let count = super::handshakes::count_in_progress(&netlink, local);
        drop(netlink);
        if let Some(spares) = &self.spares {
            spares.refill();
        }
        count
    }

    fn open<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match &self.spares {
            Some(spares) => spares.open(open),
            None => open(),
        }
    }

    /// From now on `listener`, which is bound to `local`, completes no handshake that has not
    /// begun.
    pub(super) fn drop_new_handshakes(
        &self,
        listener: BorrowedFd<'_>,
        local: SocketAddr,
    ) -> io::Result<DecoyListener> {
        let Err(forbidden) = socket2::SockRef::from(&listener).attach_filter(&filter::BARE_SYNS)
        else {
            return Ok(None);
        };
        let diverted = self.open(|| self.decoys.divert_new_connections(listener, local));
        diverted
            .map(Some)
            .map_err(|reason| io::Error::new(forbidden.kind(), format!("{forbidden}; {reason}")))
    }
}

#[cfg(not(target_os = "linux"))]
impl Seal {
    pub(super) fn new(_: usize, _: &SocketOptions) -> Self {
        Self {}
    }

    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    pub(super) fn with_spares(self, _: usize) -> io::Result<Self> {
        Ok(self)
    }

    /// This system cannot count handshakes.
    pub(super) fn handshakes(&self, _: SocketAddr) -> Option<usize> {
        None
    }

    pub(super) fn drop_new_handshakes(
        &self,
        _: BorrowedFd<'_>,
        _: SocketAddr,
    ) -> io::Result<DecoyListener> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system has no filter for new connections",
        ))
    }
}

#[cfg(target_os = "linux")]
mod filter {
    use socket2::SockFilter;

    // Classic BPF, `linux/bpf_common.h`: an instruction's code is its class (LD is 0) with its
    // operation.
    const LOAD_BYTE_AT: u16 = 0x10 /* B */ | 0x20 /* ABS */;
    const AND: u16 = 0x04 /* ALU */ | 0x50 /* AND */;
    const JUMP_IF_EQUAL: u16 = 0x05 /* JMP */ | 0x10 /* JEQ */;
    const RETURN: u16 = 0x06 /* RET */;

    // RFC 9293 §3.1: the flags are byte 13 of the TCP header.
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;

    const DROP: u32 = 0;
    /// Number of bytes of the packet to keep: all.
    const PASS: u32 = u32::MAX;

    /// Drops a segment with SYN and without ACK, and passes every other. A filter on a TCP socket
    /// sees the segment from its TCP header on, over IPv4 and IPv6 alike.
    pub(super) const BARE_SYNS: [SockFilter; 5] = [
        // 0: Load the flags into the accumulator. The kernel drops a segment that is too short to
        // have them.
        SockFilter::new(LOAD_BYTE_AT, 0, 0, FLAGS_OFFSET),
        // 1: Only SYN and ACK matter. ECN and other flags may come with a SYN.
        SockFilter::new(AND, 0, 0, SYN | ACK),
        // 2: SYN alone requests a new connection: go on with 3. Anything else: skip one, to 4.
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        // 3
        SockFilter::new(RETURN, 0, 0, DROP),
        // 4
        SockFilter::new(RETURN, 0, 0, PASS),
    ];
}
