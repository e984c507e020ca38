//! Last response to exit: busy keep-alive connections send a request with a slow response, and the
//! stop comes meanwhile. The time runs from the moment at which the client has read the last
//! response to the end of the process.
//!
//! The client follows RFC 9112 §9.6. It closes once it has read a response with `Connection:
//! close`, and otherwise waits for the server to close.

use crate::{
    Result, client,
    measure::{Sample, sample},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

const CONNECTIONS: usize = 64;

/// From the last request to the stop. By then all handlers run, and none has finished.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// Longer than any drain of the comparison.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

pub fn take(peer: &'static Peer, _: &Options) -> Result<Sample> {
    let server = Server::start(peer, &Setup::default())?;
    let mut open = (0..CONNECTIONS)
        .map(|_| client::served_once(server.address))
        .collect::<io::Result<Vec<TcpStream>>>()?;
    for stream in &mut open {
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    }
    thread::sleep(UNDER_WAY);
    let asked = server.ask_to_stop()?;
    let (mut lost, mut last) = (0.0, asked);
    let mut left = Vec::new();
    for mut stream in open {
        match client::hear(&mut stream) {
            Ok(response) => {
                last = Instant::now();
                if !client::closes(&response) {
                    left.push(stream);
                }
            }
            Err(_) => lost += 1.0,
        }
    }
    // If anything delays the exit now, it is the server itself.
    if poll(&mut [PollFd::new(&server.exit, PollFlags::IN)], Some(&PATIENCE))? == 0 {
        return Err(format!(
            "{} is still there {} s after its last response",
            peer.name, PATIENCE.tv_sec
        )
        .into());
    }
    let exit = Instant::now();
    for mut stream in left {
        // End of file or reset: the connection is closed either way.
        let _ = stream.read(&mut [0; 64]);
    }
    Ok(sample([("exit_millis", (exit - last).as_secs_f64() * 1e3), ("lost", lost)]))
}
