//! One connection of the open loop: connects when it must, carries one request at a time, says what became of it.

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
    /// The request is written; this much of its answer has been read.
    Waiting {
        written: Instant,
        answer: Vec<u8>,
    },
}

/// What became of a request, or of the connection without one.
pub enum News {
    /// Nothing yet.
    None,
    /// Answered; another may follow, unless the server said that it closes.
    Answered { written: Instant, took: Duration, closes: bool },
    /// Written, and no whole answer came.
    Lost,
    /// The connection ended with no request on it, or could not be had: what was due is not the server's any more.
    Unsent,
    /// The connection ended, and nothing was due on it.
    Ended,
}

impl Lane {
    /// A connection that is about to be, with a request due on it.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            other => other?,
        }
        Ok(Self { socket, state: State::Connecting })
    }

    /// One that is there already, with nothing due.
    pub fn idle(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { socket: stream.into(), state: State::Idle })
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Writes the request, if it can be. The clock of a request starts when it is written.
    pub fn send(&mut self) -> News {
        let written = Instant::now();
        match self.socket.write(client::REQUEST) {
            Ok(_) => self.state = State::Waiting { written, answer: Vec::new() },
            Err(error) if is_not_yet(&error) => self.state = State::Connecting,
            Err(_) => return News::Unsent,
        }
        News::None
    }

    /// Looks what has come.
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
                (Ok(read), State::Waiting { written, answer }) => {
                    answer.extend_from_slice(&buffer[..read]);
                    if answer.ends_with(HELLO.as_bytes()) {
                        let (written, closes) = (*written, client::closes(answer));
                        self.state = State::Idle;
                        return News::Answered { written, took: written.elapsed(), closes };
                    }
                }
                // Nobody asked. It is as good as gone.
                (Ok(_), State::Idle | State::Connecting) => return News::Ended,
            }
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    // A write before the handshake is complete.
    error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::NotConnected
}
