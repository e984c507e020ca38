//! Ten thousand idle connections: what they hold, and how fast they are closed at a stop.

use crate::{median, server::Server};
use lameduck_peers::HELLO;
use serde_json::{Value, json};
use std::{
    error::Error,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

/// What each connection did before.
#[derive(Clone, Copy, Debug)]
pub enum History {
    /// It got one answer.
    ServedOnce,
    /// It never sent a byte.
    Byteless,
}

impl History {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServedOnce => "idle_served_once",
            Self::Byteless => "idle_byteless",
        }
    }
}

/// One round.
#[derive(Clone, Copy)]
pub struct Sample {
    bytes: f64,
    peak_bytes: f64,
    close_millis: f64,
    exit_millis: f64,
}

/// Idle for this long before anybody looks.
const IDLE: Duration = Duration::from_secs(3);

pub fn measure(name: &str, connections: usize, history: History) -> Result<Sample, Box<dyn Error>> {
    let server = Server::start(name, &[])?;
    // What a first connection sets up is not an idle connection's.
    drop(connect(&server, History::ServedOnce)?);
    thread::sleep(Duration::from_millis(300));
    let before = server.memory("VmRSS")?;
    let mut open = (0..connections).map(|_| connect(&server, history)).collect::<io::Result<Vec<_>>>()?;
    thread::sleep(IDLE);
    let per_connection = |bytes: f64| (bytes - before) / connections as f64;
    let bytes = per_connection(server.memory("VmRSS")?);
    let peak_bytes = per_connection(server.memory("VmHWM")?);
    let asked = server.ask_to_stop()?;
    for stream in &mut open {
        // An end or a reset: it is over either way.
        while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
    }
    let close = asked.elapsed();
    server.wait()?;
    let exit = asked.elapsed();
    Ok(Sample { bytes, peak_bytes, close_millis: millis(close), exit_millis: millis(exit.saturating_sub(close)) })
}

fn connect(server: &Server, history: History) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server.address)?;
    if matches!(history, History::ServedOnce) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(HELLO.as_bytes()) {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..read]);
        }
    }
    Ok(stream)
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

pub fn summary(samples: &[Sample]) -> Value {
    let of = |what: fn(&Sample) -> f64| median(samples.iter().map(what).collect());
    json!({
        "bytes": of(|sample| sample.bytes),
        "peak_bytes": of(|sample| sample.peak_bytes),
        "close_millis": of(|sample| sample.close_millis),
        "exit_millis": of(|sample| sample.exit_millis),
    })
}
