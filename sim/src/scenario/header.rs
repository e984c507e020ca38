//! Headers of the PROXY protocol, as a load balancer in front of the host sends them.

use crate::client::RequestSpec;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The target of a request that must not reach a handler.
pub(crate) const UNANNOUNCED: &str = "/unannounced";

/// The header with which each connection of a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHeader {
    /// What it is.
    pub kind: HeaderKind,
    /// Number of pieces in which it is sent, if it has as many bytes.
    pub pieces: u64,
    /// Pause between two pieces.
    pub pause_ms: u64,
}

/// Kinds of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeaderKind {
    /// Version 1, with the client's address.
    Version1,
    /// Version 2, with the client's address and a field that is ignored.
    Version2,
    /// Version 2, for a connection of the proxy itself.
    Local,
    /// Version 1, without an address.
    Unknown,
}

/// How a client errs in the header of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeaderFault {
    /// It sends a request, and no header.
    Missing,
    /// It sends a header without an address, and a request.
    Invalid,
    /// It sends a part of a header, and nothing more: a half, or, each third client, a few bytes.
    Half,
    /// It sends a header and a request where no header is expected.
    Unexpected,
}

impl HeaderKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Version1, Self::Version2, Self::Local, Self::Unknown];

    /// Returns the address that the header of the n-th client announces.
    #[must_use]
    pub fn announced(self, n: usize) -> Option<SocketAddr> {
        matches!(self, Self::Version1 | Self::Version2).then(|| address(n))
    }

    /// Returns the header of the n-th client.
    #[must_use]
    pub fn bytes(self, n: usize) -> Vec<u8> {
        let address = address(n);
        match (self, address) {
            (Self::Version1, SocketAddr::V4(client)) => {
                format!("PROXY TCP4 {} 10.0.0.1 {} 443\r\n", client.ip(), client.port()).into()
            }
            (Self::Version1, SocketAddr::V6(client)) => {
                format!("PROXY TCP6 {} ::1 {} 443\r\n", client.ip(), client.port()).into()
            }
            (Self::Version2, SocketAddr::V4(client)) => version_2(
                [0x21, 0x11],
                &[&client.ip().octets()[..], &[10, 0, 0, 1]].concat(),
                client.port(),
            ),
            (Self::Version2, SocketAddr::V6(client)) => version_2(
                [0x21, 0x21],
                &[&client.ip().octets()[..], &Ipv6Addr::LOCALHOST.octets()].concat(),
                client.port(),
            ),
            (Self::Local, _) => [SIGNATURE_V2, &[0x20, 0, 0, 0]].concat(),
            (Self::Unknown, _) => b"PROXY UNKNOWN\r\n".to_vec(),
        }
    }
}

/// Addresses, ports, and a field that means nothing.
fn version_2(kind: [u8; 2], addresses: &[u8], port: u16) -> Vec<u8> {
    const FIELD: [u8; 5] = [0x04, 0, 2, b'x', b'x'];
    let length = addresses.len() + 4 + FIELD.len();
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let ports = [port.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    [SIGNATURE_V2, &kind, &length, addresses, &ports, &FIELD].concat()
}

/// The address that proxies announce for the n-th client: of IPv4 for each second client.
fn address(n: usize) -> SocketAddr {
    let n = u16::try_from(n).unwrap_or(u16::MAX);
    let ip = if n % 2 == 0 {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))
    };
    SocketAddr::new(ip, 1_000 + n)
}

/// Whether an address is one that the headers of scenarios announce.
pub(crate) const fn is_announced(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => matches!(ip.octets(), [192, 0, 2, _]),
        IpAddr::V6(ip) => matches!(ip.segments(), [0x2001, 0xdb8, ..]),
    }
}

impl ProxyHeader {
    /// Returns the pieces of the n-th client's header.
    pub(super) fn pieces(self, n: usize) -> Vec<Vec<u8>> {
        let bytes = self.kind.bytes(n);
        let pieces = usize::try_from(self.pieces).unwrap_or(1).clamp(1, bytes.len());
        bytes.chunks(bytes.len().div_ceil(pieces)).map(<[u8]>::to_vec).collect()
    }

    /// Returns how long the header takes.
    #[must_use]
    pub const fn lasts(self) -> Duration {
        Duration::from_millis(self.pieces.saturating_sub(1) * self.pause_ms)
    }
}

impl HeaderFault {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Invalid, Self::Half, Self::Unexpected];

    /// Returns what the n-th client sends.
    pub(super) fn bytes(self, n: usize) -> Vec<u8> {
        let request = RequestSpec::get(UNANNOUNCED).head();
        let kind = HeaderKind::ALL[n % 2];
        match self {
            Self::Missing => request,
            Self::Invalid => [&b"PROXY TCP4 192.0.2.7\r\n"[..], &request].concat(),
            Self::Half => {
                let header = kind.bytes(n);
                let part = if n.is_multiple_of(3) { 1 + n % 5 } else { header.len() / 2 };
                header[..part].to_vec()
            }
            Self::Unexpected => [kind.bytes(n), request].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HeaderKind, ProxyHeader, is_announced};

    #[test]
    fn the_pieces_of_a_header_are_the_header() {
        for kind in HeaderKind::ALL {
            for (pieces, n) in [(1, 0), (2, 1), (5, 2), (1_000, 3)] {
                let header = ProxyHeader { kind, pieces, pause_ms: 1 };
                assert_eq!(header.pieces(n).concat(), kind.bytes(n));
                assert!(header.pieces(n).len() as u64 <= pieces);
                assert!(kind.announced(n).is_none_or(is_announced));
            }
        }
    }
}
