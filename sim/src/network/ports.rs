//! The ports in use on a host. A port is in use from its reservation until its listener is dropped.

use lameduck::runtime::ListenAddress;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

/// The first port that port 0 may choose.
const CHOSEN_PORT_MIN: u16 = 30_000;

/// The ports in use on one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    taken: Arc<Mutex<BTreeSet<u16>>>,
}

impl Ports {
    /// Reserves the port of `address`. Simulated hosts have one address, so the port is reserved on
    /// all addresses.
    pub(super) fn take(&self, address: &ListenAddress) -> io::Result<Lease> {
        let asked = match address {
            ListenAddress::Port(port) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port),
            ListenAddress::Tcp(address) if address.ip().is_loopback() => *address,
            ListenAddress::Tcp(address) => {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())
            }
            ListenAddress::Unix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "no Unix sockets in the simulation",
                ));
            }
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let port = match asked.port() {
            0 => (CHOSEN_PORT_MIN..=u16::MAX)
                .find(|port| !taken.contains(port))
                .ok_or(io::ErrorKind::AddrInUse)?,
            port => port,
        };
        if !taken.insert(port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let ip = if asked.ip().is_loopback() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        };
        Ok(Lease { ports: self.clone(), address: SocketAddr::new(ip, port) })
    }
}

/// A reserved port, freed on drop.
#[derive(Debug)]
pub struct Lease {
    ports: Ports,
    address: SocketAddr,
}

impl Lease {
    /// Returns the address, with the chosen port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ports
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.address.port());
    }
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use lameduck::runtime::ListenAddress;
    use std::io::ErrorKind;

    #[test]
    fn a_port_is_taken_once_until_it_is_given_back() {
        let ports = Ports::default();
        let lease = ports.take(&ListenAddress::Port(80)).unwrap();
        assert_eq!(ports.take(&ListenAddress::Port(80)).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(lease);
        ports.take(&ListenAddress::Port(80)).unwrap();
    }

    #[test]
    fn port_zero_chooses_a_free_one() {
        let ports = Ports::default();
        let first = ports.take(&ListenAddress::Port(0)).unwrap();
        let second = ports.take(&ListenAddress::Port(0)).unwrap();
        assert_ne!(first.address().port(), second.address().port());
    }
}
