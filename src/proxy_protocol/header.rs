//! The header of the PROXY protocol, versions 1 and 2, which a proxy sends before the first byte of
//! its client.
//!
//! It is read by exact lengths, so that no byte after it is taken out of the socket.

use crate::runtime::{Address, Opening, Transport};
use proxy_header::{Error, ParseConfig, ProxyHeader};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::ReadBuf;

/// The shortest header: `PROXY UNKNOWN` and the end of its line.
const HEADER_MIN: usize = 15;

/// The longest header. Version 1 has at most 107 bytes. Version 2 with addresses has at most 232;
/// the rest is for the fields that a proxy adds, which are ignored.
const HEADER_MAX: usize = 4 * 1024;

/// The part of a header of version 2 that precedes its addresses, with its length at the end.
const FIXED_V2: usize = 16;

/// Version 2 and the command LOCAL: the proxy itself connects. It is accepted whatever its family
/// is (The PROXY protocol, §2.2).
const LOCAL_V2: u8 = 0x20;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of a header that has arrived.
#[derive(Debug, Default)]
pub(super) struct HeaderReader(Vec<u8>);

/// The client that a header announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// A client with this address.
    Client(Address),
    /// The proxy itself, such as a health check, or a client without an address.
    Unknown,
}

impl Announced {
    pub(super) fn client(self) -> Option<Address> {
        match self {
            Self::Client(address) => Some(address),
            Self::Unknown => None,
        }
    }
}

impl HeaderReader {
    pub(super) const fn opening(&self) -> Opening {
        if self.0.is_empty() { Opening::Silent } else { Opening::Header }
    }

    /// Reads the rest of the header, and nothing after it.
    ///
    /// # Errors
    /// If the bytes are no header, or end within it.
    pub(super) fn poll_read<T: Transport>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Announced>> {
        let mut room = [0; 256];
        loop {
            let len = self.missing().min(room.len());
            let mut buf = ReadBuf::new(&mut room[..len]);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                let reason = "the connection ended within the PROXY header";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
            if let Some(announced) = self.add(buf.filled())? {
                return Poll::Ready(Ok(announced));
            }
        }
    }

    /// Returns the number of bytes that are certainly part of the header, and have not arrived. At
    /// least one, unless the header is complete.
    fn missing(&self) -> usize {
        let arrived = self.0.len();
        let end = match (self.0.first(), self.0.get(FIXED_V2 - 2..FIXED_V2)) {
            (Some(b'\r'), Some(&[high, low])) => {
                FIXED_V2 + usize::from(u16::from_be_bytes([high, low]))
            }
            (Some(b'\r'), _) => FIXED_V2,
            // The end of the line is not known.
            _ => HEADER_MIN.max(arrived + 1),
        };
        end.saturating_sub(arrived)
    }

    /// Adds bytes. Returns the client once the header is complete.
    ///
    /// # Errors
    /// If the bytes are no header.
    fn add(&mut self, bytes: &[u8]) -> io::Result<Option<Announced>> {
        self.0.extend_from_slice(bytes);
        let begins_like = |signature: &[u8]| {
            self.0.iter().zip(signature).all(|(byte, expected)| byte == expected)
        };
        if !begins_like(SIGNATURE_V1) && !begins_like(SIGNATURE_V2) {
            return Err(invalid("no PROXY header"));
        }
        let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
        let end = self.0.len() + self.missing();
        let is_local = || self.0.get(SIGNATURE_V2.len()) == Some(&LOCAL_V2);
        if begins_like(SIGNATURE_V2) && is_local() && end <= HEADER_MAX {
            return Ok((end == self.0.len()).then_some(Announced::Unknown));
        }
        match ProxyHeader::parse(&self.0, config) {
            Ok((header, _)) => Ok(Some(match header.proxied_address() {
                Some(address) => Announced::Client(Address::Tcp(address.source)),
                None => Announced::Unknown,
            })),
            Err(Error::BufferTooShort) if end > HEADER_MAX => {
                Err(invalid("the PROXY header is too long"))
            }
            // Also reported for a length of version 2 that has no room for its addresses.
            Err(Error::BufferTooShort) if end > self.0.len() => Ok(None),
            Err(_) => Err(invalid("the PROXY header is invalid")),
        }
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::{Announced, HEADER_MAX, HeaderReader, SIGNATURE_V2};
    use crate::runtime::Address;
    use std::io;

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE_V2, &[0x20 | command, family], &length, rest].concat()
    }

    /// Reads a header from bytes that continue after it. Returns what it announces and its length.
    fn read(bytes: &[u8], piece: usize) -> io::Result<(Announced, usize)> {
        let mut reader = HeaderReader::default();
        let mut at = 0;
        loop {
            let len = reader.missing().min(piece);
            assert!(len > 0, "{bytes:?}");
            let end = at + len;
            let found = reader.add(bytes.get(at..end).expect("no read beyond the input"))?;
            at = end;
            if let Some(announced) = found {
                return Ok((announced, at));
            }
        }
    }

    fn client(address: &str) -> Announced {
        Announced::Client(Address::Tcp(address.parse().unwrap()))
    }

    #[test]
    fn headers_of_both_versions_are_read_exactly_in_any_pieces() {
        let v4 = [&[192, 0, 2, 1], &[10, 0, 0, 1], &[0xd4, 0x31, 0x01, 0xbb][..]].concat();
        let tlv = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0xd4, 0x31, 1, 0xbb]];
        let unix = [0; 216];
        let cases = [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 54321 443\r\n".to_vec(), client("192.0.2.1:54321")),
            (b"PROXY TCP6 2001:db8::1 ::1 54321 443\r\n".to_vec(), client("[2001:db8::1]:54321")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Announced::Unknown),
            (b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(), Announced::Unknown),
            (version_2(1, 0x11, &v4), client("192.0.2.1:54321")),
            (version_2(1, 0x11, &tlv), client("192.0.2.1:54321")),
            (version_2(1, 0x21, &v6.concat()), client("[2001:db8::1]:54321")),
            (version_2(1, 0x31, &unix), Announced::Unknown),
            (version_2(0, 0x00, &[]), Announced::Unknown),
            (version_2(0, 0x11, &v4), Announced::Unknown),
            // The health checks of a balancer failed that sent a family without its addresses.
            (version_2(0, 0x11, &[]), Announced::Unknown),
            (version_2(0, 0x01, &[]), Announced::Unknown),
            (version_2(0, 0xff, &[7; 3]), Announced::Unknown),
        ];
        for (header, announced) in cases {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            for piece in [1, 2, 7, 1_000] {
                let (found, length) = read(&bytes, piece).unwrap();
                assert_eq!((&found, length), (&announced, header.len()), "{header:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_with_its_first_wrong_byte() {
        for (bytes, wrong_at) in [
            (&b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], 1),
            (b"\r\nGET / HTTP/1.1\r\n", 3),
            (b"\x16\x03\x01", 1),
            (b"PRI * HTTP/2.0\r\n", 3),
            (b"PROXX TCP4 192.0.2.1 10.0.0.1 1 2\r\n", 5),
            (b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0", 11),
            (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", 16),
        ] {
            let mut reader = HeaderReader::default();
            let refused = bytes.iter().position(|byte| reader.add(&[*byte]).is_err());
            assert_eq!(refused.map(|at| at + 1), Some(wrong_at), "{bytes:?}");
        }
        for invalid in [
            &b"PROXY TCP4 192.0.2.1 10.0.0.1 54321 70000\r\n"[..],
            b"PROXY TCP4 ::1 ::1 54321 443\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 54321 443\r\n",
            &version_2(1, 0x11, &[0; 8]),
        ] {
            assert!(read(invalid, 1_000).is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn a_header_has_a_longest_size() {
        let v1 = [&b"PROXY TCP4 "[..], &[b'1'; 300]].concat();
        let mut reader = HeaderReader::default();
        let refused = v1.iter().position(|byte| reader.add(&[*byte]).is_err());
        assert_eq!(refused.map(|at| at + 1), Some(107));
        let most = HEADER_MAX - 16;
        assert!(read(&version_2(1, 0x11, &vec![0; most]), 1_000).is_ok());
        let mut reader = HeaderReader::default();
        let long = version_2(1, 0x11, &vec![0; most + 1]);
        assert!(reader.add(&long[..16]).is_err(), "its length is known before its bytes are kept");
    }
}
