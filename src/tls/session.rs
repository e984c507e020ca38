//! The TLS session of one connection: rustls over bytes, without a socket.
//!
//! It uses rustls' unbuffered interface, so that the buffers are ours. A session keeps no bytes of
//! whole records: ciphertext only while a record is incomplete or the kernel does not take it, and
//! decrypted bytes only until they are read. An idle session therefore has no buffer at all.

use crate::unwind::catch;
use bytes::{Buf, BytesMut};
use rustls::{
    ServerConfig, SupportedCipherSuite,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use std::{io, mem, sync::Arc};
use tokio::io::ReadBuf;

/// Ciphertext that is kept while it is incomplete. rustls refuses a record above 18 KiB and a
/// handshake message above 64 KiB.
const PARTIAL_MAX: usize = 96 * 1024;

/// Bytes that the records of one write add: the header, the tag and, in TLS 1.2, the nonce of each
/// 16 KiB, with room for a key update.
const RECORDS_OVERHEAD: usize = 256;

/// The part of the records that the keys of TLS 1.2 may encrypt which is left for the responses in
/// flight once the connection announces its close. AES-GCM has 2^24 records.
const RECORDS_LEFT_PART: u64 = 16;

/// Other connections have a turn after a read with more records. A record costs processor time
/// however few bytes it has: a key update replaces the keys.
const RECORDS_PER_TURN: u64 = 16;

/// A TLS session and the bytes between it and the kernel.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// Ciphertext of an incomplete record or handshake message.
    partial: Vec<u8>,
    /// Decrypted bytes that were not read yet.
    plain: BytesMut,
    /// Ciphertext that the kernel has not taken yet.
    pub(super) unsent: BytesMut,
    /// Records of responses that were encrypted.
    records: u64,
    /// The last ciphertext had more than [`RECORDS_PER_TURN`] records.
    is_turn_due: bool,
    peer: PeerEnd,
    our_end: OurEnd,
    /// The error that ended the session. Its alert is in `unsent`.
    failed: Option<rustls::Error>,
}

/// Whether the peer has ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerEnd {
    Open,
    /// By a close_notify, or by a FIN without one.
    Ended,
}

/// How our direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OurEnd {
    Open,
    /// A close_notify was encrypted.
    Notified,
    /// A response was cut. No close_notify is sent, so that it does not look complete (P5d).
    Cut,
}

impl Session {
    /// # Errors
    /// If rustls cannot use the configuration.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            plain: BytesMut::new(),
            unsent: BytesMut::new(),
            records: 0,
            is_turn_due: false,
            peer: PeerEnd::Open,
            our_end: OurEnd::Open,
            failed: None,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    pub(super) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Whether a read would be ready without the socket.
    pub(super) fn is_readable(&self) -> bool {
        self.has_plain() || self.has_ended()
    }

    /// Whether the peer sends nothing more that could be read.
    pub(super) fn has_ended(&self) -> bool {
        self.has_peer_ended() || self.failed.is_some()
    }

    /// Whether bytes of the peer are kept, decrypted or not.
    pub(super) fn has_buffered(&self) -> bool {
        self.has_plain() || !self.partial.is_empty()
    }

    /// Whether only the socket can have something to read, and nothing is left to be sent.
    pub(super) fn is_quiet(&self) -> bool {
        let keeps = self.has_buffered() || self.has_ended();
        !keeps && self.unsent.is_empty() && !self.is_handshaking()
    }

    pub(super) fn has_peer_ended(&self) -> bool {
        self.peer == PeerEnd::Ended
    }

    /// Records the peer's FIN. Without a close_notify it means the same as over TCP: the framing of
    /// HTTP shows whether a message is complete.
    pub(super) fn on_fin(&mut self) {
        self.peer = PeerEnd::Ended;
    }

    /// Whether bytes may be encrypted: the session was neither closed for writing nor cut.
    pub(super) fn is_open(&self) -> bool {
        self.our_end == OurEnd::Open
    }

    /// From now on no close_notify is sent.
    pub(super) fn mark_cut(&mut self) {
        self.our_end = OurEnd::Cut;
    }

    pub(super) fn discard_plain(&mut self) {
        self.plain = BytesMut::new();
    }

    /// Returns the error that ended the session.
    pub(super) fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            None => Ok(()),
        }
    }

    /// Moves decrypted bytes into `to`.
    pub(super) fn read_plain(&mut self, to: &mut ReadBuf<'_>) {
        let len = self.plain.len().min(to.remaining());
        to.put_slice(&self.plain[..len]);
        self.plain.advance(len);
        if self.plain.is_empty() {
            self.plain = BytesMut::new();
        }
    }

    /// The ciphertext that precedes what is read next.
    pub(super) fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Keeps ciphertext that was read, without processing it.
    pub(super) fn keep(&mut self, read: &[u8]) {
        self.partial.extend_from_slice(read);
    }

    /// Processes the ciphertext that is kept.
    pub(super) fn process_kept(&mut self) {
        let mut input = mem::take(&mut self.partial);
        self.process(&mut input, &mut ReadBuf::new(&mut []));
    }

    /// Processes ciphertext, which begins with [`partial`](Self::partial). Decrypted bytes go into
    /// `to`, and what does not fit is kept. Responses to other records go into `unsent`.
    pub(super) fn process(&mut self, input: &mut [u8], to: &mut ReadBuf<'_>) {
        self.partial = Vec::new();
        if self.failed.is_some() {
            return;
        }
        let mut unsent = mem::take(&mut self.unsent);
        let before = unsent.len();
        let used = self.advance(input, to, &mut unsent, |_, _| {});
        self.is_turn_due = count_records(&input[..used]) > RECORDS_PER_TURN;
        if self.our_end == OurEnd::Cut {
            // rustls itself adds a close_notify once its keys are used up.
            unsent.truncate(before);
        }
        self.unsent = unsent;
        if self.failed.is_none() && self.peer == PeerEnd::Open && used < input.len() {
            if input.len() - used > PARTIAL_MAX {
                self.failed = Some(rustls::Error::General("a message is too long".to_owned()));
            }
            self.partial = input[used..].to_vec();
        }
    }

    /// Whether the last ciphertext had so many records that other connections should have a turn
    /// before the next is read.
    pub(super) fn take_turn(&mut self) -> bool {
        mem::take(&mut self.is_turn_due)
    }

    /// Appends `plain` as records to `out`.
    ///
    /// # Errors
    /// If the session has failed, or was closed for writing.
    pub(super) fn encrypt(&mut self, plain: &[u8], out: &mut BytesMut) -> io::Result<()> {
        if !self.is_open() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (len, before) = (plain.len() + RECORDS_OVERHEAD, out.len());
        let result =
            self.write(out, |traffic, out| append(out, len, |room| traffic.encrypt(plain, room)));
        self.records += count_records(&out[before..]);
        result
    }

    /// Whether the keys can encrypt only few records more. TLS 1.3 replaces its keys.
    pub(super) fn is_spent(&self) -> bool {
        match self.tls.negotiated_cipher_suite() {
            Some(SupportedCipherSuite::Tls12(suite)) => {
                let max = suite.common.confidentiality_limit;
                self.records >= max - max / RECORDS_LEFT_PART
            }
            Some(SupportedCipherSuite::Tls13(_)) | None => false,
        }
    }

    /// Adds a close_notify to the bytes to be sent, once, unless the connection was cut.
    pub(super) fn close(&mut self) {
        let may_close = self.our_end == OurEnd::Open && !self.is_handshaking();
        if !may_close || self.failed.is_some() {
            return;
        }
        self.our_end = OurEnd::Notified;
        let mut unsent = mem::take(&mut self.unsent);
        // A session that cannot encrypt any more ends without it.
        let _ = self.write(&mut unsent, |traffic, out| {
            append(out, RECORDS_OVERHEAD, |room| traffic.queue_close_notify(room))
        });
        self.unsent = unsent;
    }

    fn write(
        &mut self,
        out: &mut BytesMut,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerData>, &mut BytesMut) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check()?;
        let mut kept = mem::take(&mut self.partial);
        let mut result = Err(io::ErrorKind::NotConnected.into());
        let used = self.advance(&mut kept, &mut ReadBuf::new(&mut []), out, |traffic, out| {
            result = write(traffic, out);
        });
        kept.drain(..used);
        self.partial = kept;
        result
    }

    /// Lets rustls process `input` as far as possible, then calls `write` if it can send data.
    /// Returns the number of bytes that were used. The configuration may contain the app's code,
    /// such as a resolver of certificates. A panic in it ends the session (P15).
    fn advance(
        &mut self,
        input: &mut [u8],
        to: &mut ReadBuf<'_>,
        out: &mut BytesMut,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerData>, &mut BytesMut),
    ) -> usize {
        let len = input.len();
        catch(|| self.advance_or_panic(input, to, out, write)).unwrap_or_else(|panic| {
            crate::log::error!(panic, "the TLS configuration panicked; its connection ends");
            self.failed = Some(rustls::Error::General("the configuration panicked".to_owned()));
            len
        })
    }

    fn advance_or_panic(
        &mut self,
        input: &mut [u8],
        to: &mut ReadBuf<'_>,
        out: &mut BytesMut,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerData>, &mut BytesMut),
    ) -> usize {
        let Self { tls, plain, peer, failed, .. } = self;
        let mut deliver = |bytes: &[u8]| {
            let len = if plain.is_empty() { bytes.len().min(to.remaining()) } else { 0 };
            to.put_slice(&bytes[..len]);
            plain.extend_from_slice(&bytes[len..]);
        };
        let mut used = 0;
        loop {
            // Once more after an error: rustls may have an alert to send, which it returns before
            // it looks at the input. It keeps positions in the input, so that must be the same.
            let unread = &mut input[used..];
            let UnbufferedStatus { mut discard, state } = tls.process_tls_records(unread);
            let is_last = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        deliver(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::ReadEarlyData(mut early)) => {
                    while let Some(Ok(record)) = early.next_record() {
                        discard += record.discard;
                        deliver(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    let len = RECORDS_OVERHEAD;
                    append(out, len, |room| message.encode(room)).is_err() || failed.is_some()
                }
                // The bytes are already in `out`.
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    *peer = PeerEnd::Ended;
                    false
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    used += discard;
                    write(&mut traffic, out);
                    return used;
                }
                Err(error) => {
                    let is_second = failed.is_some();
                    failed.get_or_insert(error);
                    is_second
                }
                // Blocked, closed, or a state that this version does not know.
                Ok(_) => true,
            };
            used += discard;
            if is_last {
                return used;
            }
        }
    }
}

fn count_records(mut ciphertext: &[u8]) -> u64 {
    let mut count = 0;
    // The type, the version and the length of a record.
    while let [_, _, _, high, low, rest @ ..] = ciphertext {
        ciphertext = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
        count += 1;
    }
    count
}

type ServerData = rustls::server::ServerConnectionData;

/// Appends what `encode` writes into a buffer of `len` bytes, or of the size that it requires.
fn append<E: SizeError>(
    out: &mut BytesMut,
    len: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> io::Result<()> {
    let before = out.len();
    out.resize(before + len, 0);
    let mut encoded = encode(&mut out[before..]);
    if let Err(error) = &encoded
        && let Some(required) = error.required_size()
    {
        out.resize(before + required, 0);
        encoded = encode(&mut out[before..]);
    }
    out.truncate(before + encoded.as_ref().copied().unwrap_or(0));
    encoded.map(drop).map_err(|_| io::Error::other("the TLS session cannot encrypt"))
}

/// An error that may mean that a buffer is too small.
trait SizeError {
    fn required_size(&self) -> Option<usize>;
}

impl SizeError for EncodeError {
    fn required_size(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(error) => Some(error.required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl SizeError for EncryptError {
    fn required_size(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(error) => Some(error.required_size),
            Self::EncryptExhausted => None,
        }
    }
}

#[cfg(test)]
#[cfg(feature = "tls-ring")]
pub(super) mod tests;
