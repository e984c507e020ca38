//! A session against rustls as its client, without a socket.

use super::Session;
use bytes::BytesMut;
use rustls::{
    CipherSuiteCommon, ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    SupportedCipherSuite, Tls12CipherSuite,
    crypto::{
        CryptoProvider,
        ring::{self, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
    },
    pki_types::{PrivateKeyDer, ServerName},
};
use std::{
    io::{Read, Write},
    sync::Arc,
};
use tokio::io::ReadBuf;

/// A client, and the configuration of its server.
pub(in crate::tls) fn client_and_config() -> (ClientConnection, Arc<ServerConfig>) {
    client_and_config_by(ring::default_provider())
}

fn client_and_config_by(provider: CryptoProvider) -> (ClientConnection, Arc<ServerConfig>) {
    let (client, server) = configs_by(provider);
    (connect(client), server)
}

fn connect(client: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap()
}

/// The configurations of a client and of its server, which accepts early data.
fn configs_by(provider: CryptoProvider) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(provider);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    server.max_early_data_size = 1_000;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_early_data = true;
    (Arc::new(client), Arc::new(server))
}

/// A client and the session of its server, which are not connected.
fn pair() -> (ClientConnection, Session) {
    let (client, config) = client_and_config();
    (client, Session::new(config).unwrap())
}

/// Returns what a client has to send.
pub(in crate::tls) fn records(client: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut records).unwrap();
    }
    records
}

/// Passes bytes to the session in pieces of this length. Returns what it decrypts.
fn pass(session: &mut Session, records: &[u8], piece: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    for piece in records.chunks(piece) {
        let mut input = [session.partial(), piece].concat();
        let mut room = [0; 100];
        let mut to = ReadBuf::new(&mut room);
        session.process(&mut input, &mut to);
        plain.extend_from_slice(to.filled());
        while session.has_plain() {
            let mut to = ReadBuf::new(&mut room);
            session.read_plain(&mut to);
            plain.extend_from_slice(to.filled());
        }
    }
    plain
}

/// Passes what the session has to send to the client.
fn respond(session: &mut Session, client: &mut ClientConnection) {
    let unsent = session.unsent.split();
    let mut unsent = &unsent[..];
    while !unsent.is_empty() {
        client.read_tls(&mut unsent).unwrap();
        client.process_new_packets().unwrap();
    }
}

/// Asserts that the session has not ended by a panic, which it contains.
fn assert_calm(session: &Session) {
    let error = session.check().err().map(|error| error.to_string());
    assert!(error.is_none_or(|error| !error.contains("panicked")));
}

fn handshake(client: &mut ClientConnection, session: &mut Session, piece: usize) {
    while client.is_handshaking() || session.is_handshaking() {
        let hello = records(client);
        assert_eq!(pass(session, &hello, piece), b"");
        respond(session, client);
    }
}

#[test]
fn records_may_arrive_in_pieces_of_any_length() {
    for piece in [1, 2, 7, 1_000, 1 << 20] {
        let (mut client, mut session) = pair();
        handshake(&mut client, &mut session, piece);
        assert!(session.is_quiet(), "no buffer is kept: {piece}");
        let sent: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        client.writer().write_all(&sent).unwrap();
        let sealed = records(&mut client);
        assert_eq!(pass(&mut session, &sealed, piece), sent, "{piece}");
        assert!(session.is_quiet(), "{piece}");
        session.check().unwrap();
    }
}

// The second record interrupts the handshake message of the first. rustls kept positions in its
// input, was given another one to send its alert, and panicked. In the idle set that ended the
// worker with all of its connections (P15).
#[test]
fn a_record_that_interrupts_a_handshake_message_is_an_error() {
    let interrupted = b"\x16\x03\x01\0\x04\x01\0\x01\0\x17\x03\x03\0\x01\0";
    for piece in [1, 9, 10, 15] {
        let (_, mut session) = pair();
        assert_eq!(pass(&mut session, interrupted, piece), b"");
        session.check().unwrap_err();
        assert_calm(&session);
        session.close();
    }
}

// Any bytes, before and after the handshake, are data or an error (P15).
#[test]
fn no_input_makes_the_session_panic() {
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for n in 0..400 {
        let (mut client, mut session) = pair();
        if n % 4 > 0 {
            handshake(&mut client, &mut session, 1_000);
            client.writer().write_all(b"GET / HTTP/1.1\r\n").unwrap();
        }
        if n % 4 > 1 {
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(b"host: a\r\n\r\n").unwrap();
        }
        if n % 4 > 2 {
            client.send_close_notify();
        }
        let mut input = records(&mut client);
        for _ in 0..draw(3) {
            let (at, kind) = (draw(input.len()), draw(256));
            input[at] = kind.to_le_bytes()[0];
        }
        let foreign: &[u8] = [
            &b"\x17\x03\x03\0\x01\0"[..],
            b"\x16\x03\x01\0\x04\x01\0\x01\0",
            b"\x15\x03\x03\0\x02\x01\0",
            b"\x14\x03\x03\0\x01\x01",
        ][draw(4)];
        let at = if draw(2) == 0 { 0 } else { draw(input.len()) };
        input.splice(at..at, foreign.iter().copied().cycle().take(foreign.len() * draw(3)));
        let piece = 1 + draw(60);
        let _ = pass(&mut session, &input, piece);
        let _ = session.encrypt(b"response", &mut BytesMut::new());
        let _ = pass(&mut session, foreign, piece);
        assert_calm(&session);
        session.close();
    }
}

#[test]
fn early_data_is_read_first_and_once() {
    let (client_config, server_config) = configs_by(ring::default_provider());
    for piece in [1, 7, 1_000] {
        let mut client = connect(client_config.clone());
        let mut session = Session::new(server_config.clone()).unwrap();
        handshake(&mut client, &mut session, 1_000);
        let mut client = connect(client_config.clone());
        let mut session = Session::new(server_config.clone()).unwrap();
        client.early_data().expect("a ticket").write_all(b"GET / ").unwrap();
        let mut received = Vec::new();
        while client.is_handshaking() || session.is_handshaking() {
            received.extend(pass(&mut session, &records(&mut client), piece));
            respond(&mut session, &mut client);
        }
        assert!(client.is_early_data_accepted());
        client.writer().write_all(b"HTTP/1.1").unwrap();
        received.extend(pass(&mut session, &records(&mut client), piece));
        assert_eq!(received, b"GET / HTTP/1.1", "{piece}");
        session.check().unwrap();
    }
}

#[test]
fn half_a_record_is_kept_and_readable_only_when_it_is_whole() {
    let (mut client, mut session) = pair();
    handshake(&mut client, &mut session, 1_000);
    client.writer().write_all(b"GET /").unwrap();
    let record = records(&mut client);
    let (half, rest) = record.split_at(record.len() - 1);
    assert_eq!(pass(&mut session, half, 1_000), b"");
    assert!(session.has_buffered() && !session.is_readable());
    assert_eq!(pass(&mut session, rest, 1_000), b"GET /");
    assert!(!session.has_buffered());
}

#[test]
fn data_between_two_halves_of_a_record_is_encrypted_in_order() {
    let (mut client, mut session) = pair();
    handshake(&mut client, &mut session, 1_000);
    client.writer().write_all(b"question").unwrap();
    client.refresh_traffic_keys().unwrap();
    client.writer().write_all(b" two").unwrap();
    let sealed = records(&mut client);
    let (half, rest) = sealed.split_at(sealed.len() - 3);
    assert_eq!(pass(&mut session, half, 5), b"question");
    let mut out = BytesMut::new();
    session.encrypt(b"response", &mut out).unwrap();
    session.unsent.extend_from_slice(&out);
    respond(&mut session, &mut client);
    let mut received = [0; 8];
    client.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"response");
    assert_eq!(pass(&mut session, rest, 1_000), b" two");
}

#[test]
fn a_clean_end_has_one_close_notify_and_a_cut_none() {
    for is_cut in [false, true] {
        let (mut client, mut session) = pair();
        handshake(&mut client, &mut session, 1_000);
        if is_cut {
            session.mark_cut();
        }
        session.close();
        let first = session.unsent.len();
        session.close();
        assert_eq!(session.unsent.len(), first, "once");
        assert_eq!(first == 0, is_cut);
        assert!(session.encrypt(b"late", &mut BytesMut::new()).is_err());
        respond(&mut session, &mut client);
        let state = client.process_new_packets().unwrap();
        assert_eq!(state.peer_has_closed(), !is_cut);
    }
}

/// A client and the session of its server, whose keys may encrypt this number of records.
fn pair_with_limit(records_max: u64) -> (ClientConnection, Session) {
    let SupportedCipherSuite::Tls12(suite) = TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 else {
        panic!("a suite of TLS 1.2")
    };
    let common = CipherSuiteCommon { confidentiality_limit: records_max, ..suite.common };
    let suite: &'static _ = Box::leak(Box::new(Tls12CipherSuite { common, ..*suite }));
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![SupportedCipherSuite::Tls12(suite)];
    let (client, config) = client_and_config_by(provider);
    (client, Session::new(config).unwrap())
}

// rustls adds a close_notify to what it sends next, once its keys are used up. The response that it
// had refused to encrypt looked complete (P5d).
#[test]
fn a_session_that_cannot_encrypt_sends_no_close_notify() {
    let (mut client, mut session) = pair_with_limit(16);
    handshake(&mut client, &mut session, 1_000);
    let mut out = BytesMut::new();
    while session.encrypt(b"response", &mut out).is_ok() {}
    session.mark_cut();
    session.close();
    client.writer().write_all(b"question").unwrap();
    let sealed = records(&mut client);
    assert_eq!(pass(&mut session, &sealed, 1_000), b"question");
    assert_eq!(session.unsent, b""[..]);
}

#[test]
fn bytes_that_are_no_tls_end_the_session_with_an_alert() {
    let (_, mut session) = pair();
    assert_eq!(pass(&mut session, b"GET / HTTP/1.1\r\n\r\n", 1_000), b"");
    assert!(session.check().is_err() && session.is_readable());
    assert_eq!(session.unsent.first(), Some(&21));
    session.close();
    assert_eq!(session.unsent.len(), 7, "the alert, and no close_notify");
}
