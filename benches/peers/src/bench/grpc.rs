//! Unary gRPC calls: a check of tonic's health service, with an empty request, by `h2load`.

use crate::{
    Result, client, h2load,
    measure::Sample,
    options::Options,
    peer::Peer,
    server::{Server, Setup},
};
use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
};

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// A message without fields: not compressed, and no bytes.
const REQUEST: [u8; 5] = [0; 5];

/// The message of the reply: SERVING, in a separate frame.
const REPLY: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];

pub fn calls(peer: &'static Peer, options: &Options) -> Result<Sample> {
    let server = Server::start(peer, &Setup { http2: true, ..Setup::default() })?;
    check(server.address)?;
    let body = env::temp_dir().join(format!("lameduck-bench-grpc-{}", std::process::id()));
    fs::write(&body, REQUEST)?;
    let file = body.display().to_string();
    let more =
        [h2load::MANY, "-d", &file, "-H", "content-type: application/grpc", "-H", "te: trailers"];
    let sample = h2load::take(&server, options.seconds, METHOD, &more);
    fs::remove_file(&body)?;
    sample
}

/// Makes one call. `h2load` sees the status of HTTP, which is 200 for every call.
fn check(address: SocketAddr) -> Result<()> {
    let mut block = vec![0x83, 0x86];
    let fields = [
        (":path", METHOD),
        (":authority", "bench"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len())?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len())?;
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        Result::Ok([&head[..], payload].concat())
    };
    let mut stream = client::connect(address)?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(
        &[frame(4, 0, 0, &[])?, frame(1, 4, 1, &block)?, frame(0, 1, 1, &REQUEST)?].concat(),
    )?;
    let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
    while !read.windows(REPLY.len()).any(|part| part == REPLY) {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(format!("no reply to a call, but {}", read.escape_ascii()).into());
        }
        read.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}
