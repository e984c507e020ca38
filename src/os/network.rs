//! Binds ports: exclusively, for several listeners each, and without listening yet.
//!
//! A reservation must keep a second instance out (P14), yet several workers of this process must
//! listen on the port. Linux has two options for that, and each alone allows too much:
//! - `SO_REUSEADDR` is needed to restart while old connections linger in TIME_WAIT. It also lets
//!   two sockets share a port as long as neither listens.
//! - `SO_REUSEPORT` is needed for one accept queue per worker. It also admits every other process
//!   of the same user that sets it.
//!
//! Each option is therefore set only when it can do no harm:
//!
//! ```text
//!  reserve   bind, without either option        a second instance: AddrInUse
//!            (if there are leftovers in TIME_WAIT: bind again with SO_REUSEADDR)
//!  listen    SO_REUSEADDR, listen               alone on the port, or AddrInUse here at the latest
//!            SO_REUSEPORT, and every sibling binds with it set, and listens
//! ```
//!
//! A second instance binds without `SO_REUSEPORT` and is refused; a sibling binds with it and
//! joins.
//!
//! An inherited socket is already bound and listening. Reserving its address returns it as it is.

use super::{
    SpareFds,
    listener::{OsListener, Ownership, SharedPortLock, listening_socket},
    port_lock::PortLock,
    quiesce::Seal,
    socket_options::{ReusePort, SocketOptions, tcp_address, tcp_socket},
    unix_path::UnixPath,
    with_limit,
};
use crate::runtime::{Address, ListenAddress, Network, Reservation, ServerRole};
use rustix::io::Errno;
use socket2::{SockAddr, Socket};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// The system's network: TCP and Unix sockets.
#[derive(Clone, Debug, Default)]
pub struct OsNetwork {
    options: SocketOptions,
    spare_fds: Option<SpareFds>,
    /// Inherited sockets that are not reserved yet.
    inherited: Arc<Mutex<Vec<Inherited>>>,
    /// Ports shared with other processes, while reserved or open. Only other processes may listen
    /// there too: this process must not bind the same port twice.
    #[cfg(target_os = "linux")]
    shared: Arc<Mutex<Vec<Shared>>>,
}

/// A shared address, and a reference that is alive while the port is in use.
#[cfg(target_os = "linux")]
type Shared = (SocketAddr, Weak<PortLock>);

/// A listening socket that another process bound.
#[derive(Debug)]
struct Inherited {
    role: ServerRole,
    socket: Socket,
    local: Address,
}

impl OsNetwork {
    /// Returns a network whose sockets have these options.
    #[must_use]
    pub fn new(options: SocketOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Takes over a socket that another process, such as a service manager, bound and listens on,
    /// for the server with this role. [Reserving](Network::reserve) the returned address then
    /// returns this socket instead of binding a port. Several listeners share its one queue. It is
    /// closed as described at [`OsListener::inherited`].
    ///
    /// # Errors
    /// The errors of [`OsListener::inherited`].
    pub fn inherit(&self, role: ServerRole, descriptor: OwnedFd) -> io::Result<ListenAddress> {
        let (socket, local) = listening_socket(descriptor)?;
        let address = listen_address_of(&local);
        self.lock_inherited().push(Inherited { role, socket, local });
        Ok(address)
    }

    fn take_inherited(&self, address: &ListenAddress, role: ServerRole) -> Option<Inherited> {
        let mut inherited = self.lock_inherited();
        let wanted = |socket: &Inherited| {
            socket.role == role && listen_address_of(&socket.local) == *address
        };
        let at = inherited.iter().position(wanted)?;
        Some(inherited.remove(at))
    }

    fn lock_inherited(&self) -> MutexGuard<'_, Vec<Inherited>> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self, address: &ListenAddress) -> io::Result<(Ownership, Socket, Address)> {
        address.check()?;
        match address {
            ListenAddress::Unix(path) => {
                let (path, socket) = UnixPath::bind(path, self.options.unix_mode)?;
                let local = Address::Unix(Some(path.path().to_owned()));
                Ok((Ownership::Unix(Arc::new(path)), socket, local))
            }
            ListenAddress::Port(_) | ListenAddress::Tcp(_) => {
                let socket = bind_one_of(&address.tcp_candidates(), self.options.reuse_port)?;
                let local = tcp_address(&socket)?;
                Ok((Ownership::Tcp(self.claim(local)?), socket, Address::Tcp(local)))
            }
        }
    }

    /// Gives these spare descriptors to the listeners of the internal server (P16): see
    /// [`OsListener::with_spare_fds`].
    #[must_use]
    pub fn with_spare_fds(self, spare_fds: SpareFds) -> Self {
        Self { spare_fds: Some(spare_fds), ..self }
    }
}

impl Network for OsNetwork {
    type Listener = OsListener;
    type Reservation = OsReservation;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<OsReservation> {
        self.try_reserve(address, role, listeners).map_err(with_limit)
    }
}

impl OsNetwork {
    fn try_reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<OsReservation> {
        let (ownership, first, local) = match self.take_inherited(address, role) {
            Some(Inherited { socket, local, .. }) => (Ownership::Inherited, socket, local),
            None => self.bind(address)?,
        };
        first.set_nonblocking(true)?;
        let spare_fds = match role {
            ServerRole::Main => None,
            ServerRole::Internal => self.spare_fds.clone(),
        };
        let (options, listeners) = (self.options.clone(), listeners.max(1));
        let seal = Seal::new(listeners, &options);
        let seal = match (&ownership, role) {
            (Ownership::Tcp(_), ServerRole::Main) => seal.with_spares(listeners)?,
            (Ownership::Tcp(_) | Ownership::Unix(_) | Ownership::Inherited, _) => seal,
        };
        Ok(OsReservation { ownership, first, local, listeners, options, spare_fds, seal })
    }
}

/// A bound socket that, unless it is inherited, does not listen yet.
#[derive(Debug)]
pub struct OsReservation {
    // Before the socket, because fields are dropped in order: see `UnixPath`.
    ownership: Ownership,
    first: Socket,
    local: Address,
    listeners: usize,
    options: SocketOptions,
    spare_fds: Option<SpareFds>,
    seal: Seal,
}

impl OsReservation {
    fn listen_now(self) -> io::Result<Vec<OsListener>> {
        let Self { ownership, first, local, listeners, options, spare_fds, seal } = self;
        let sockets = match (&ownership, &local) {
            (Ownership::Unix(path), _) => {
                path.listen(|| options.listen(&first))?;
                share(first, listeners)?
            }
            (Ownership::Tcp(_), Address::Tcp(address)) => {
                // Another process that started at the same time may have bound the port for itself
                // since it was reserved here. Before, so that no connection is lost; after, since
                // that process may be between its bind and its lock.
                options.refuse_exclusive_port(*address)?;
                let sockets = listen_tcp(first, *address, listeners, &options)?;
                options.refuse_exclusive_port(*address)?;
                sockets
            }
            (Ownership::Tcp(_), Address::Unix(_)) => return Err(io::ErrorKind::InvalidInput.into()),
            (Ownership::Inherited, _) => share(first, listeners)?,
        };
        Ok(sockets
            .into_iter()
            .map(|socket| {
                let (local, ownership, options) =
                    (local.clone(), ownership.clone(), options.clone());
                let listener = OsListener::new(socket, local, ownership, options, seal.clone());
                match &spare_fds {
                    Some(spare_fds) => listener.with_spare_fds(spare_fds.clone()),
                    None => listener,
                }
            })
            .collect())
    }
}

impl Reservation for OsReservation {
    type Listener = OsListener;

    fn local(&self) -> Address {
        self.local.clone()
    }

    fn listen(self) -> impl Future<Output = io::Result<Vec<OsListener>>> + Send {
        std::future::ready(self.listen_now().map_err(with_limit))
    }
}

fn listen_tcp(
    first: Socket,
    local: SocketAddr,
    listeners: usize,
    options: &SocketOptions,
) -> io::Result<Vec<Socket>> {
    first.set_reuse_address(true)?;
    options.apply_to_connection(&first)?;
    options.listen(&first)?;
    if listeners == 1 {
        return Ok(vec![first]);
    }
    join(first, local, listeners, options)
}

impl SocketOptions {
    /// Refuses a shared port that another process of this user has for itself (P14).
    #[cfg(target_os = "linux")]
    fn refuse_exclusive_port(&self, local: SocketAddr) -> io::Result<()> {
        if self.reuse_port == ReusePort::Yes && PortLock::covers(local) {
            return Err(Errno::ADDRINUSE.into());
        }
        Ok(())
    }

    /// On this system an exclusive port never has `SO_REUSEPORT`.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn refuse_exclusive_port(&self, _: SocketAddr) -> io::Result<()> {
        Ok(())
    }
}

/// Opens one queue per listener. The kernel spreads connections over them by their hash.
#[cfg(target_os = "linux")]
fn join(
    first: Socket,
    local: SocketAddr,
    listeners: usize,
    options: &SocketOptions,
) -> io::Result<Vec<Socket>> {
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..listeners {
        let sibling = tcp_socket(local)?;
        sibling.set_nonblocking(true)?;
        sibling.set_reuse_address(true)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&SockAddr::from(local))?;
        options.apply_to_connection(&sibling)?;
        options.listen(&sibling)?;
        sockets.push(sibling);
    }
    Ok(sockets)
}

/// Shares one queue among all listeners. Elsewhere `SO_REUSEPORT` does not spread connections, or
/// every socket must set it before it binds.
#[cfg(not(target_os = "linux"))]
fn join(
    first: Socket,
    _: SocketAddr,
    listeners: usize,
    _: &SocketOptions,
) -> io::Result<Vec<Socket>> {
    share(first, listeners)
}

/// Returns the address to reserve for the inherited socket that is bound to `local`. For a Unix
/// socket without a path it is empty.
fn listen_address_of(local: &Address) -> ListenAddress {
    match local {
        Address::Tcp(address) => ListenAddress::Tcp(*address),
        Address::Unix(path) => ListenAddress::Unix(path.clone().unwrap_or_default()),
    }
}

/// Duplicates one socket, with its queue, for each listener.
fn share(first: Socket, listeners: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = (1..listeners).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    sockets.push(first);
    Ok(sockets)
}

fn bind_one_of(candidates: &[SocketAddr], reuse_port: ReusePort) -> io::Result<Socket> {
    let mut outcome = Err(io::ErrorKind::InvalidInput.into());
    for candidate in candidates {
        outcome = bind_tcp(*candidate, reuse_port);
        match &outcome {
            Err(error) if is_family_missing(error) => {}
            Ok(_) | Err(_) => break,
        }
    }
    outcome
}

/// Returns whether an error means that this machine has no IPv6.
fn is_family_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind_tcp(address: SocketAddr, reuse_port: ReusePort) -> io::Result<Socket> {
    let socket = tcp_socket(address)?;
    match reuse_port {
        ReusePort::Yes => {
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
        }
        ReusePort::No => match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.set_reuse_address(false)?;
            }
            bound => bound?,
        },
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
impl OsNetwork {
    /// A port is shared only if all processes that listen on it agreed (P14). It is shared only
    /// with other processes: two servers of one process on one port would get each other's clients
    /// (P16).
    fn claim(&self, local: SocketAddr) -> io::Result<SharedPortLock> {
        if self.options.reuse_port == ReusePort::No {
            return Ok(Some(Arc::new(PortLock::set(local)?)));
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, held)| held.strong_count() > 0);
        if shared.iter().any(|(ours, _)| super::port_lock::overlap(*ours, local)) {
            return Err(Errno::ADDRINUSE.into());
        }
        self.options.refuse_exclusive_port(local)?;
        let claim = Arc::new(PortLock::none());
        shared.push((local, Arc::downgrade(&claim)));
        Ok(Some(claim))
    }
}

#[cfg(not(target_os = "linux"))]
impl OsNetwork {
    /// On this system an exclusive port never has `SO_REUSEPORT`.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn claim(&self, _: SocketAddr) -> io::Result<SharedPortLock> {
        Ok(None)
    }
}
