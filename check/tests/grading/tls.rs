//! A little server that speaks TLS and loses nothing, or does one thing wrong.

use crate::server::{DRAIN, LAME_DUCK, MS, TICK};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use signal_hook::{consts::SIGTERM, flag};
use socket2::SockRef;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

struct Server {
    fault: String,
    stop: Arc<AtomicBool>,
    stopped: OnceLock<Instant>,
    open: AtomicUsize,
}

impl Server {
    /// The time since the stop, or zero.
    fn since_stop(&self) -> Duration {
        if !self.stop.load(SeqCst) {
            return Duration::ZERO;
        }
        self.stopped.get_or_init(Instant::now).elapsed()
    }

    /// The time from the stop until what is left is cut.
    fn drain(&self) -> Duration {
        // A client waits for some 8 s.
        if self.fault == "tls/cut late" { 9_000 * MS } else { DRAIN }
    }
}

pub(crate) fn run(port: u16, fault: &str) -> ! {
    let stop = Arc::new(AtomicBool::new(false));
    flag::register(SIGTERM, stop.clone()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (config, fault) = (Arc::new(config), fault.to_owned());
    let server = Server { fault, stop, stopped: OnceLock::new(), open: AtomicUsize::new(0) };
    let server = Arc::new(server);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    while server.since_stop() < LAME_DUCK {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        let (config, server) = (config.clone(), server.clone());
        server.open.fetch_add(1, SeqCst);
        thread::spawn(move || {
            serve(stream, config, &server);
            server.open.fetch_sub(1, SeqCst);
        });
    }
    drop(listener);
    while server.open.load(SeqCst) > 0 && server.since_stop() < server.drain() + 100 * MS {
        thread::sleep(TICK);
    }
    process::exit(0)
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, server: &Server) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    let tls = ServerConnection::new(config).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    let (mut bytes, mut was_used, mut buffer) = (Vec::new(), false, [0; 4096]);
    loop {
        let is_late = stream.conn.is_handshaking() && server.stop.load(SeqCst);
        if is_late && server.fault == "tls/handshake" {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        let since_stop = server.since_stop();
        let is_stopping = !since_stop.is_zero();
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = bytes.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let span = head.split_once("GET /stream?ms=").and_then(|(_, rest)| {
                let digits = rest.split(' ').next()?;
                digits.parse().ok().map(Duration::from_millis)
            });
            if let Some(span) = span.filter(|_| server.fault != "each path is the same") {
                return pieces(stream, server, span);
            }
            was_used = true;
            let close = if is_stopping { "connection: close\r\n" } else { "" };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{close}\r\nhello");
            if stream.write_all(head.as_bytes()).is_err() || is_stopping {
                return end_session(stream, server.fault != "tls/close-notify");
            }
        }
        let grace = if was_used { Duration::ZERO } else { 200 * MS };
        if since_stop >= LAME_DUCK + grace {
            return end_session(stream, server.fault != "tls/close-notify");
        }
    }
}

fn end_session(mut stream: StreamOwned<ServerConnection, TcpStream>, notifies: bool) {
    if notifies {
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
    let _ = stream.sock.shutdown(Shutdown::Write);
    let end = Instant::now() + 200 * MS;
    while Instant::now() < end && !matches!(stream.sock.read(&mut [0; 4096]), Ok(0)) {}
}

/// Sends a body without a length for this long, and cuts it at the end of the drain.
fn pieces(mut stream: StreamOwned<ServerConnection, TcpStream>, server: &Server, span: Duration) {
    let begin = Instant::now();
    let mut bytes = &b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..];
    let is_late = server.fault == "tls/cut late";
    while begin.elapsed() < span && server.since_stop() < server.drain() {
        let is_silent = is_late && !server.since_stop().is_zero();
        if !is_silent && stream.write_all(bytes).is_err() {
            break;
        }
        thread::sleep(50 * MS);
        bytes = b"piece";
    }
    if begin.elapsed() >= span || server.fault.starts_with("tls/cut") {
        return end_session(stream, true);
    }
    let _ = SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO));
}
