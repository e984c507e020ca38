//! One connection of the open loop: connects when needed, carries one request at a time, and
//! returns its outcome.

use crate::client;
use lameduck_peers::HELLO;
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

pub struct Lane {
    pub socket: Socket,
    state: State,
}

enum State {
    /// The request waits for the connection.
    Connecting,
    Idle,
    /// The request is written, and `response` is the part of the response that was read.
    Waiting {
        written: Instant,
        response: Vec<u8>,
    },
}

/// Outcome of a request, or of a connection without one.
pub enum News {
    /// Nothing yet.
    None,
    /// The response arrived. Another request may follow, unless the server announced a close.
    Response { written: Instant, took: Duration, closes: bool },
    /// The request was written, and no complete response arrived.
    Lost,
    /// The connection ended before its request was written, or could not be opened. The request
    /// does not count against the server.
    Unsent,
    /// The connection ended without a request on it.
    Ended,
}

impl Lane {
    /// Starts to connect, with a request to send.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            other => other?,
        }
        Ok(Self { socket, state: State::Connecting })
    }

    /// Wraps an open connection, with no request to send.
    pub fn idle(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { socket: stream.into(), state: State::Idle })
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Writes the request if possible. The time of a request starts when it is written.
    pub fn send(&mut self) -> News {
        let written = Instant::now();
        match self.socket.write(client::REQUEST) {
            Ok(_) => self.state = State::Waiting { written, response: Vec::new() },
            Err(error) if is_not_yet(&error) => self.state = State::Connecting,
            Err(_) => return News::Unsent,
        }
        News::None
    }

    /// Reads what has arrived, or writes the request if the connection is new.
    pub fn peek(&mut self) -> News {
        if matches!(self.state, State::Connecting) {
            return self.send();
        }
        let mut buffer = [0; 1024];
        loop {
            match (self.socket.read(&mut buffer), &mut self.state) {
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => return News::None,
                (Err(_) | Ok(0), State::Waiting { .. }) => return News::Lost,
                (Err(_) | Ok(0), State::Idle | State::Connecting) => return News::Ended,
                (Ok(read), State::Waiting { written, response }) => {
                    response.extend_from_slice(&buffer[..read]);
                    if response.ends_with(HELLO.as_bytes()) {
                        let (written, closes) = (*written, client::closes(response));
                        self.state = State::Idle;
                        return News::Response { written, took: written.elapsed(), closes };
                    }
                }
                // Bytes without a request: the connection is unusable.
                (Ok(_), State::Idle | State::Connecting) => return News::Ended,
            }
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    // A write before the handshake is complete.
    error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::NotConnected
}
