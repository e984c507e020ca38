//! A TLS client on a blocking socket that can send half a record and sees how the connection ends.

use crate::support::{MAX_WAIT, frames::frame};
use lameduck_wire::http1::{self, Parsed, Response};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A close_notify, then a FIN.
    Clean,
    /// A FIN alone: what was received may be incomplete.
    Cut,
    Reset,
    /// The server refused the handshake or a record.
    Refused,
}

/// A configuration that trusts one certificate.
pub(super) fn config(trusted: &CertificateDer<'static>, alpn: &[&str]) -> Arc<ClientConfig> {
    config_of_several([trusted], alpn)
}

/// A configuration that trusts several certificates.
pub(super) fn config_of_several<'a>(
    trusted: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(super) struct TlsClient {
    pub(super) tls: ClientConnection,
    socket: TcpStream,
    pub(super) unread: Vec<u8>,
    /// `http2_body` has read a GOAWAY.
    pub(super) has_goaway: bool,
    ended: Option<End>,
}

impl TlsClient {
    /// Connects the socket; no byte of the handshake is sent.
    pub(super) fn silent(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::silent_to("localhost", address, config)
    }

    /// The same with another name of the server.
    pub(super) fn silent_to(
        name: &'static str,
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(MAX_WAIT)).unwrap();
        socket.set_write_timeout(Some(MAX_WAIT)).unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let mut tls = ClientConnection::new(config.clone(), name).unwrap();
        tls.set_buffer_limit(None);
        Self { tls, socket, unread: Vec::new(), has_goaway: false, ended: None }
    }

    /// Connects and completes the handshake.
    pub(super) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let mut client = Self::silent(address, config);
        client.handshake().expect("the handshake");
        client
    }

    pub(super) fn handshake(&mut self) -> Result<(), End> {
        while self.tls.is_handshaking() {
            self.flush();
            if self.tls.is_handshaking() {
                self.receive()?;
            }
        }
        self.flush();
        Ok(())
    }

    /// Sends what the session has to send. The peer may be gone.
    fn flush(&mut self) {
        let pending = self.take_records();
        let _ = self.socket.write_all(&pending);
    }

    /// Returns the records that the session has to send, without sending them.
    pub(super) fn take_records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Encrypts bytes without sending them.
    pub(super) fn seal(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.tls.writer().write_all(bytes.as_ref()).unwrap();
        self.take_records()
    }

    pub(super) fn send_raw(&mut self, records: &[u8]) {
        self.socket.write_all(records).unwrap();
    }

    /// Sends records. Returns whether the peer was still there.
    pub(super) fn try_send_raw(&mut self, records: &[u8]) -> bool {
        self.socket.write_all(records).is_ok()
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let records = self.seal(bytes);
        self.send_raw(&records);
    }

    /// Encrypts a close_notify without sending it.
    pub(super) fn seal_close_notify(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.take_records()
    }

    pub(super) fn send_close_notify(&mut self) {
        let records = self.seal_close_notify();
        let _ = self.try_send_raw(&records);
    }

    pub(super) fn shut_write(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads from the socket once. The end is reported after the bytes that came with it.
    fn receive(&mut self) -> Result<(), End> {
        if let Some(end) = self.ended {
            return Err(end);
        }
        let before = self.unread.len();
        self.receive_once().or_else(|end| {
            self.ended = Some(end);
            if self.unread.len() > before { Ok(()) } else { Err(end) }
        })
    }

    fn receive_once(&mut self) -> Result<(), End> {
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => return Err(End::Cut),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(End::Reset),
            // This process was stopped and continued.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("cannot read: {error}"),
        }
        let processed = self.tls.process_new_packets().map_err(|_| End::Refused)?;
        let mut plain = vec![0; processed.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut plain).unwrap();
        self.unread.extend(plain);
        if processed.peer_has_closed() {
            let mut rest = [0; 64];
            return Err(match self.socket.read(&mut rest) {
                Ok(0) => End::Clean,
                Ok(_) => panic!("bytes after a close_notify"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
                Err(error) => panic!("no FIN after a close_notify: {error}"),
            });
        }
        Ok(())
    }

    /// Reads everything, and returns how the connection ended.
    pub(super) fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.receive() {
                return end;
            }
        }
    }

    pub(super) fn send_get(&mut self, path: &str) {
        self.send(http1::get_bytes(path));
    }

    /// Returns the next HTTP/1 response, or how the connection ended before it.
    pub(super) fn response(&mut self) -> Result<Response, End> {
        loop {
            match http1::parse(&self.unread) {
                Parsed::Complete(response, length) => {
                    self.unread.drain(..length);
                    return Ok(response);
                }
                Parsed::Partial => self.receive()?,
                Parsed::Malformed => panic!("no HTTP/1: {:?}", self.unread.escape_ascii()),
            }
        }
    }

    #[track_caller]
    pub(super) fn get(&mut self, path: &str) -> Response {
        self.send_get(path);
        self.response().expect("a response")
    }

    /// Sends the preface of HTTP/2 and a GET request on stream 1.
    pub(super) fn start_http2(&mut self, path: &str) {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        self.send(bytes);
        self.send_http2(path, 1);
    }

    /// Sends a GET request on this stream.
    pub(super) fn send_http2(&mut self, path: &str, stream: u32) {
        let mut block = vec![0x82, 0x87, 0x41, 9];
        block.extend_from_slice(b"localhost");
        block.extend_from_slice(&[0x44, u8::try_from(path.len()).unwrap()]);
        block.extend_from_slice(path.as_bytes());
        self.send(frame(1, 0x5, stream, &block));
    }

    /// Returns the next HTTP/2 frame: its type, its flags and its payload.
    pub(super) fn next_frame(&mut self) -> Result<(u8, u8, Vec<u8>), End> {
        loop {
            if let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = &self.unread[..] {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if rest.len() >= length {
                    let found = (*kind, *flags, rest[..length].to_vec());
                    self.unread.drain(..9 + length);
                    return Ok(found);
                }
            }
            self.receive()?;
        }
    }

    /// Returns the body of the only open stream once it has ended. Acknowledges PINGs and SETTINGS,
    /// and opens the window of the connection again.
    pub(super) fn http2_body(&mut self) -> Result<String, End> {
        let mut body = Vec::new();
        loop {
            let (kind, flags, payload) = self.next_frame()?;
            match kind {
                0 => {
                    if let Ok(read @ 1..) = u32::try_from(payload.len()) {
                        self.send(frame(8, 0, 0, &read.to_be_bytes()));
                    }
                    body.extend(payload);
                }
                4 if flags == 0 => self.send(frame(4, 1, 0, &[])),
                6 if flags == 0 => self.send(frame(6, 1, 0, &payload)),
                7 => self.has_goaway = true,
                _ => {}
            }
            if kind < 2 && flags & 1 != 0 {
                return Ok(String::from_utf8(body).unwrap());
            }
        }
    }
}
