//! A WebSocket client (RFC 6455), with what a test of a service needs: text messages, pings and
//! closes. Its masks are constant, so that the bytes on the wire are the same in each run.

use super::{
    ClientId, Connect, RequestFailure, RequestSpec, ResponseSummary,
    answer::{Garbled, Head},
    http1, pause,
};
use bytes::{Buf, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Requests the upgrade, sends each message and waits for one message after each, and closes.
/// Returns the status of the response to the handshake, if there was one.
///
/// # Errors
/// If the connect failed.
pub(super) async fn websocket<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    messages: &[String],
    step: usize,
) -> Result<Option<u16>, RequestFailure> {
    let mut io = http1::connect(client_id, connect).await?;
    let connection = client_id.connected();
    let request = client_id.asks(ask, connection, 0);
    client_id.step(step);
    let (mut status, mut received) = (None, None);
    let conversation = async {
        io.write_all(&ask.named(&client_id.name_of(request)).bytes()).await?;
        client_id.sent(request);
        converse(client_id, request, &mut io, messages, &mut status, &mut received).await
    };
    let how = tokio::select! {
        biased;
        end = conversation => end.unwrap_or("reset"),
        () = pause(client_id.max_wait()) => "timed-out",
    };
    if let Some(count) = received {
        client_id.tell("messages", &[("request", request.into()), ("count", count.into())]);
    }
    client_id.tell("ended", &[("connection", connection.into()), ("how", how.into())]);
    Ok(status)
}

async fn converse<I: AsyncRead + AsyncWrite + Unpin>(
    client_id: &ClientId,
    request: u64,
    io: &mut I,
    messages: &[String],
    status: &mut Option<u16>,
    received: &mut Option<u64>,
) -> io::Result<&'static str> {
    let mut buffer = BytesMut::new();
    let head = loop {
        match Head::take(&mut buffer, &http::Method::GET, |_, _| {}) {
            Ok(Some(head)) => break head,
            Ok(None) => {}
            Err(Garbled) => return Ok("garbled"),
        }
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok("end-before-head");
        }
    };
    *status = Some(head.status);
    if head.status != 101 {
        client_id.head(request, &head);
        // Only the status counts: the connection is not used again.
        client_id.ended(request, &Ok(ResponseSummary::new(&head, 0, 0)));
        return Ok("refused");
    }
    client_id.tell("upgraded", &[]);
    let received = received.insert(0);
    for message in messages {
        io.write_all(&masked(TEXT, message.as_bytes())).await?;
        loop {
            match frame(io, &mut buffer).await? {
                None => return Ok("fin"),
                Some((TEXT | BINARY, _)) => {
                    *received += 1;
                    break;
                }
                Some((PING, payload)) => io.write_all(&masked(PONG, &payload)).await?,
                Some((CLOSE, payload)) => {
                    io.write_all(&masked(CLOSE, &payload)).await?;
                    return Ok("closed by the service");
                }
                Some(_) => {}
            }
        }
    }
    io.write_all(&masked(CLOSE, &1000_u16.to_be_bytes())).await?;
    while let Some((opcode, _)) = frame(io, &mut buffer).await? {
        if opcode == CLOSE {
            break;
        }
    }
    Ok("closed")
}

/// Reads one frame: its opcode and payload. Returns `None` at the end of the stream.
async fn frame<I: AsyncRead + Unpin>(
    io: &mut I,
    buffer: &mut BytesMut,
) -> io::Result<Option<(u8, BytesMut)>> {
    loop {
        if let Some(frame) = take_frame(buffer) {
            return Ok(Some(frame));
        }
        if io.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn take_frame(buffer: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let opcode = buffer.first()? & 0x0f;
    let (length, from) = match buffer.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)), 4),
        127 => {
            let length = u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?);
            (usize::try_from(length).ok()?, 10)
        }
        length => (usize::from(length), 2),
    };
    if buffer.len() - from < length {
        return None;
    }
    buffer.advance(from);
    Some((opcode, buffer.split_to(length)))
}

/// Returns a frame of a client, which must be masked.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 11, 13, 17];
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(0x80 | short as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::{TEXT, masked, take_frame};
    use bytes::BytesMut;

    #[test]
    fn frames_of_every_length_are_read_whole_and_one_by_one() {
        for length in [0, 5, 125, 126, 70_000] {
            let mut wire = masked(TEXT, &vec![b'x'; length]);
            // A server does not mask: the same frame without its mask.
            let head = wire.len() - length - 4;
            wire.drain(head..head + 4);
            let mut buffer = BytesMut::from(&wire[..wire.len() - 1]);
            assert_eq!(take_frame(&mut buffer), None, "{length}: incomplete");
            buffer.extend_from_slice(&wire[wire.len() - 1..]);
            buffer.extend_from_slice(b"rest");
            let (opcode, payload) = take_frame(&mut buffer).unwrap();
            assert_eq!((opcode, payload.len(), &buffer[..]), (TEXT, length, &b"rest"[..]));
        }
    }
}
