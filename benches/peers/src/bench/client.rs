//! A blocking client that sends a request and reads its response, for everything that is not a
//! load.

use lameduck_peers::HELLO;
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `request`, and waits for the response.
pub fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    hear(stream).map(drop)
}

/// Reads one response.
pub fn hear(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut response, mut buffer) = (Vec::new(), [0; 1024]);
    while !response.ends_with(HELLO.as_bytes()) {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        response.extend_from_slice(&buffer[..read]);
    }
    Ok(response)
}

/// Returns whether the response announces that its connection closes.
pub fn closes(response: &[u8]) -> bool {
    const CLOSE: &[u8] = b"connection: close";
    response.windows(CLOSE.len()).any(|window| window.eq_ignore_ascii_case(CLOSE))
}

/// Connects, and gets one response.
pub fn served_once(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    ask(&mut stream, REQUEST)?;
    Ok(stream)
}
