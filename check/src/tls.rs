//! A TLS client that reports how a connection ends: with a `close_notify`, or without.

use lameduck_wire::{
    End,
    http1::{self, Parsed, Response},
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// One connection. The certificate of the server is not verified.
#[derive(Debug)]
pub struct Client {
    transport: http1::Client,
    tls: ClientConnection,
    plain: Vec<u8>,
    has_close_notify: bool,
    /// The first error of the TLS session.
    error: Option<String>,
}

impl Client {
    /// Sends the first message of the handshake.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn begin(transport: http1::Client) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let tls =
            ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        let mut client =
            Self { transport, tls, plain: Vec::new(), has_close_notify: false, error: None };
        client.flush().map_err(|error| error.to_string())?;
        Ok(client)
    }

    /// Returns the connection below.
    pub const fn transport(&mut self) -> &mut http1::Client {
        &mut self.transport
    }

    /// Returns whether the server has sent a `close_notify`.
    #[must_use]
    pub const fn has_close_notify(&self) -> bool {
        self.has_close_notify
    }

    /// Sends a request, after the handshake. Returns its response.
    ///
    /// # Errors
    /// How the connection ended before the response was complete.
    pub fn request(&mut self, bytes: &str) -> Result<Response, End> {
        self.send(bytes)?;
        self.response()
    }

    /// Parses what was received and not consumed. A `close_notify` completes a response without a
    /// length, and a FIN alone does not.
    #[must_use]
    pub fn parsed(&self) -> Parsed {
        let parse = if self.has_close_notify { http1::parse_at_close } else { http1::parse };
        parse(&self.plain)
    }

    /// Waits for the head of the next response, which stays unread.
    ///
    /// # Errors
    /// How the connection ended before the head was complete.
    pub fn await_head(&mut self) -> Result<(), End> {
        while !self.plain.windows(4).any(|four| four == b"\r\n\r\n") {
            if !self.read_more()? {
                return Err(if self.plain.is_empty() { End::Closed } else { End::ClosedEarly });
            }
        }
        Ok(())
    }

    /// Returns the next response.
    ///
    /// # Errors
    /// How the connection ended before the response was complete.
    pub fn response(&mut self) -> Result<Response, End> {
        loop {
            match self.parsed() {
                Parsed::Complete(response, length) => {
                    self.plain.drain(..length);
                    return Ok(response);
                }
                Parsed::Malformed => return Err(End::Malformed),
                Parsed::Partial => {}
            }
            if !self.read_more()? {
                return Err(if self.plain.is_empty() { End::Closed } else { End::ClosedEarly });
            }
        }
    }

    /// Sends bytes, after the handshake.
    ///
    /// # Errors
    /// How the connection ended before the handshake was complete.
    pub fn send(&mut self, bytes: &str) -> Result<(), End> {
        while self.tls.is_handshaking() {
            if !self.read_more()? {
                return Err(End::Closed);
            }
        }
        // What cannot be sent has no response.
        let _ = self.tls.writer().write_all(bytes.as_bytes()).and_then(|()| self.flush());
        Ok(())
    }

    /// Describes an end: by the error of the TLS session if there was one.
    #[must_use]
    pub fn describe(&self, end: End) -> String {
        self.error.clone().filter(|_| end == End::Malformed).unwrap_or_else(|| end.to_string())
    }

    /// Reads until the connection ends. Returns how.
    pub fn end(&mut self) -> End {
        loop {
            match self.read_more() {
                Ok(true) => {}
                Ok(false) => return End::Closed,
                Err(end) => return end,
            }
        }
    }

    /// Reads once. Returns false after a FIN.
    ///
    /// # Errors
    /// Any other end. Bytes that are no TLS are [`End::Malformed`].
    pub fn read_more(&mut self) -> Result<bool, End> {
        if self.transport.read_more()? == 0 {
            return Ok(false);
        }
        let bytes = self.transport.take_unread();
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let malformed = |_| End::Malformed;
            if self.tls.read_tls(&mut left).map_err(malformed)? == 0 {
                break;
            }
            let state = self.tls.process_new_packets().map_err(|error| {
                self.error.get_or_insert_with(|| format!("TLS: {error}"));
                End::Malformed
            })?;
            self.has_close_notify |= state.peer_has_closed();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).map_err(malformed)?;
            self.plain.append(&mut plain);
        }
        // The server may be gone.
        let _ = self.flush();
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            let mut bytes = Vec::new();
            self.tls.write_tls(&mut bytes)?;
            self.transport.send(bytes)?;
        }
        Ok(())
    }
}

/// Returns the status of one GET request.
///
/// # Errors
/// `None` if the connection was refused, or what happened after the connect.
pub fn status_of(
    address: SocketAddr,
    path: &str,
    max_wait: Duration,
) -> Result<u16, Option<String>> {
    let mut client = connect(address, max_wait)?;
    let response = client.request(&last_get(path));
    response.map(|response| response.status).map_err(|end| Some(client.describe(end)))
}

/// Returns the response of one GET request, and the time from its head to its end.
///
/// # Errors
/// `None` if the connection was refused, or what happened after the connect.
pub fn timed_body(
    address: SocketAddr,
    path: &str,
    max_wait: Duration,
) -> Result<(Response, Duration), Option<String>> {
    let mut client = connect(address, max_wait)?;
    let mut read = || {
        client.send(&last_get(path))?;
        client.await_head()?;
        let begin = Instant::now();
        Ok((client.response()?, begin.elapsed()))
    };
    read().map_err(|end: End| Some(client.describe(end)))
}

/// Connects, and sends the first message of the handshake.
fn connect(address: SocketAddr, max_wait: Duration) -> Result<Client, Option<String>> {
    let mut transport = http1::Client::connect(address, max_wait).map_err(|_| None)?;
    transport.set_deadline(Instant::now() + max_wait);
    Client::begin(transport).map_err(Some)
}

/// Returns a request after which the connection is closed.
fn last_get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// Accepts any certificate, and verifies the signatures of the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::status_of;
    use std::{io::Write, net::TcpListener, thread, time::Duration};

    // The error of a server without TLS, or of one that refused the handshake by an alert, was "the
    // bytes are not HTTP".
    #[test]
    fn the_error_of_a_handshake_is_reported() {
        const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
        for (response, words) in [
            (&b"HTTP/1.1 400 Bad\r\n\r\n"[..], "TLS: received corrupt"),
            (ALERT, "HandshakeFailure"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                stream.write_all(response).unwrap();
                stream
            });
            let error = status_of(address, "/", Duration::from_secs(5)).unwrap_err().unwrap();
            assert!(error.contains(words), "{error}");
            server.join().unwrap();
        }
    }
}
