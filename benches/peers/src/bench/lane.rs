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
    Connecting(Request),
    Idle,
    /// The request is written, and `response` is the part of the response that was read.
    Waiting {
        request: Request,
        written: Instant,
        response: Vec<u8>,
    },
}

/// A request of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// One of those whose latency is recorded.
    Plain,
    /// Another one among them.
    Other(&'static [u8]),
}

impl Request {
    const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Plain => client::REQUEST,
            Self::Other(bytes) => bytes,
        }
    }
}

/// Outcome of a request, or of a connection without one.
pub enum News {
    /// Nothing yet.
    None,
    /// The response arrived. Another request may follow, unless the server announced a close.
    Response { request: Request, written: Instant, took: Duration, closes: bool },
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
    pub fn connect(address: SocketAddr, request: Request) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            other => other?,
        }
        Ok(Self { socket, state: State::Connecting(request) })
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
    pub fn send(&mut self, request: Request) -> News {
        let written = Instant::now();
        match self.socket.write(request.bytes()) {
            Ok(_) => self.state = State::Waiting { request, written, response: Vec::new() },
            Err(error) if is_not_yet(&error) => self.state = State::Connecting(request),
            Err(_) => return News::Unsent,
        }
        News::None
    }

    /// Reads what has arrived, or writes the request if the connection is new.
    pub fn peek(&mut self) -> News {
        if let State::Connecting(request) = self.state {
            return self.send(request);
        }
        let mut buffer = [0; 1024];
        loop {
            match (self.socket.read(&mut buffer), &mut self.state) {
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => return News::None,
                (Err(_) | Ok(0), State::Waiting { .. }) => return News::Lost,
                (Err(_) | Ok(0), State::Idle | State::Connecting(_)) => return News::Ended,
                (Ok(read), State::Waiting { request, written, response }) => {
                    response.extend_from_slice(&buffer[..read]);
                    if response.ends_with(HELLO.as_bytes()) {
                        let (request, written) = (*request, *written);
                        let closes = client::closes(response);
                        self.state = State::Idle;
                        let took = written.elapsed();
                        return News::Response { request, written, took, closes };
                    }
                }
                // Bytes without a request: the connection is unusable.
                (Ok(_), State::Idle | State::Connecting(_)) => return News::Ended,
            }
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    // A write before the handshake is complete.
    error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::NotConnected
}
