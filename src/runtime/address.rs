//! Listen addresses, and addresses of peers.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// An address to listen on: `[::]:8080`, `127.0.0.1:0`, `unix:/run/app.sock`, or a port on all
/// addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// This port on every address: IPv6 and IPv4 by one dual-stack socket, or IPv4 alone where IPv6
    /// is not available.
    Port(u16),
    /// Exactly this address. `[::]` is dual stack. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix stream socket at this path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Refuses a name in the abstract namespace. Other programs write it with an `@`, and any user
    /// of the machine may bind it.
    pub(crate) fn check(&self) -> io::Result<()> {
        let path = match self {
            Self::Unix(path) => path.as_os_str().as_encoded_bytes(),
            Self::Port(_) | Self::Tcp(_) => return Ok(()),
        };
        if path.starts_with(b"@") || path.contains(&0) {
            let reason = "abstract socket names are not supported; expected a path (`./@name` for \
                          a file of that name)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        Ok(())
    }

    /// The TCP addresses to try, in order; empty for a Unix socket.
    #[must_use]
    pub fn tcp_candidates(&self) -> Vec<SocketAddr> {
        match self {
            Self::Port(port) => vec![
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port),
            ],
            Self::Tcp(address) => vec![*address],
            Self::Unix(_) => Vec::new(),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "[::]:{port}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = io::Error;

    /// Parses an address.
    ///
    /// # Errors
    /// If it is neither `host:port` with a numeric host, nor `unix:` with a path.
    fn from_str(text: &str) -> io::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path after `unix:`"));
            }
            let address = Self::Unix(PathBuf::from(path));
            address.check()?;
            return Ok(address);
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected an address like `[::]:8080`, `127.0.0.1:0` or `unix:/run/app.sock`",
            )
        })
    }
}

/// The address of one end of a connection, or of a bound socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket, with its path if it has one.
    Unix(Option<PathBuf>),
}

impl Address {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}
