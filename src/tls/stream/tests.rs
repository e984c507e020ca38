//! A connection with TLS whose socket takes only a part of what is written.

use super::{
    super::session::tests::{client_and_config, records},
    TlsStream,
};
use crate::runtime::Transport;
use rustls::ClientConnection;
use std::{
    io::{Read as _, Write as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::Semaphore,
};

/// Bytes that the socket takes before its client reads.
const ROOM: usize = 64;

fn receive(client: &mut ClientConnection, mut read: &[u8]) {
    while !read.is_empty() {
        client.read_tls(&mut read).unwrap();
        client.process_new_packets().unwrap();
    }
}

/// The client reads what the socket holds. Returns whether that was anything.
fn read(client: &mut ClientConnection, wire: &mut DuplexStream) -> bool {
    let mut room = [0; ROOM];
    let mut buf = ReadBuf::new(&mut room);
    let polled = Pin::new(wire).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
    assert!(matches!(polled, Poll::Pending | Poll::Ready(Ok(()))));
    receive(client, buf.filled());
    !buf.filled().is_empty()
}

/// Returns a connection after its handshake, its client, and the client's end of the socket.
fn connected() -> (TlsStream<DuplexStream>, ClientConnection, DuplexStream) {
    connected_by(duplex(ROOM))
}

fn connected_by(
    (io, mut wire): (DuplexStream, DuplexStream),
) -> (TlsStream<DuplexStream>, ClientConnection, DuplexStream) {
    let (mut client, config) = client_and_config();
    let mut server = TlsStream::new(io, config, Arc::new(Semaphore::new(1))).unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    let mut unsent = Vec::new();
    loop {
        if let Poll::Ready(opened) = server.poll_open(cx) {
            opened.unwrap();
            break;
        }
        unsent.extend(records(&mut client));
        if let Poll::Ready(written) = Pin::new(&mut wire).poll_write(cx, &unsent) {
            unsent.drain(..written.unwrap());
        }
        read(&mut client, &mut wire);
    }
    // The tickets of the session.
    while Pin::new(&mut server).poll_flush(cx).is_pending() || read(&mut client, &mut wire) {
        read(&mut client, &mut wire);
    }
    (server, client, wire)
}

/// A write takes all bytes, and the socket only a part of their ciphertext. If a flush did not wait
/// for the rest, a response would count as finished that has not left (P5c); if the end did not,
/// the response would be cut (P5).
#[test]
fn a_flush_and_the_end_wait_for_ciphertext_that_the_socket_has_not_taken() {
    let body = [b'x'; 1_000];
    let (mut server, mut client, mut wire) = connected();
    let cx = &mut Context::from_waker(Waker::noop());
    let unsent = |server: &TlsStream<DuplexStream>| server.unacknowledged_by(|_| Some(0));
    assert_eq!(unsent(&server), Some(0));
    let written = Pin::new(&mut server).poll_write(cx, &body);
    assert!(matches!(written, Poll::Ready(Ok(1_000))), "{written:?}");
    assert!(unsent(&server) > Some(body.len() - ROOM), "{:?}", unsent(&server));
    assert!(Pin::new(&mut server).poll_flush(cx).is_pending());
    assert!(Pin::new(&mut server).poll_shutdown(cx).is_pending());
    while Pin::new(&mut server).poll_shutdown(cx).is_pending() {
        assert!(read(&mut client, &mut wire), "each poll of the end sends more");
    }
    assert_eq!(unsent(&server), Some(0));
    while read(&mut client, &mut wire) {}
    let mut received = Vec::new();
    client.reader().read_to_end(&mut received).unwrap();
    assert_eq!(received, body);
}

// A client that replaced its keys hundreds of times in each read kept a worker busy for as long as
// the connection read (P15).
#[test]
fn other_connections_have_a_turn_after_many_records() {
    let (mut server, mut client, mut wire) = connected_by(duplex(16 * 1024));
    let cx = &mut Context::from_waker(Waker::noop());
    let mut receive = |client: &mut ClientConnection, text: &[u8]| {
        client.writer().write_all(text).unwrap();
        let sent = records(client);
        assert!(Pin::new(&mut wire).poll_write(cx, &sent).is_ready());
    };
    let mut read = || {
        let mut room = [0; ROOM];
        let mut buf = ReadBuf::new(&mut room);
        let polled =
            Pin::new(&mut server).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
        polled.map(|read| read.map(|()| buf.filled().to_vec()).unwrap())
    };
    for _ in 0..20 {
        client.refresh_traffic_keys().unwrap();
    }
    receive(&mut client, b"a");
    assert_eq!(read(), Poll::Ready(b"a".to_vec()));
    receive(&mut client, b"b");
    assert_eq!(read(), Poll::Pending, "a turn");
    assert_eq!(read(), Poll::Ready(b"b".to_vec()));
    receive(&mut client, b"c");
    assert_eq!(read(), Poll::Ready(b"c".to_vec()));
}

// The turn was taken by the last look for a request that crosses a close. The request was not
// counted (P5b).
#[test]
fn a_look_ahead_is_a_turn() {
    let (mut server, mut client, mut wire) = connected_by(duplex(16 * 1024));
    let cx = &mut Context::from_waker(Waker::noop());
    for _ in 0..20 {
        client.refresh_traffic_keys().unwrap();
    }
    for text in [b"a", b"b"] {
        client.writer().write_all(text).unwrap();
        assert!(Pin::new(&mut wire).poll_write(cx, &records(&mut client)).is_ready());
        let mut room = [0; ROOM];
        assert!(Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready());
        assert!(!server.read_ahead());
    }
}
