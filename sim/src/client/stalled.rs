//! An HTTP/1 client that stops reading its response for a while.

use super::{ClientId, Connect, Http1Client, RequestSpec, exchange::Reader};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Interval at which the client checks whether its connection was reset.
const CHECK: Duration = Duration::from_millis(10);

/// More than a connection's receive buffer holds, so that one read empties it.
const READ_BYTES: usize = 256 * 1024;

/// Sends `ask`, and reads `reads` bytes of the response. Then it reads nothing for `pause`, or
/// until the connection is reset, and after that the rest. A response that was cut is recorded as
/// `response lost`.
pub async fn stalled<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    reads: u64,
    pause: Duration,
) {
    let Ok(mut http1_client) = Http1Client::open(client_id, connect).await else { return };
    let request = client_id.asks(ask, http1_client.connection, 0);
    let Http1Client { io, buffer, .. } = &mut http1_client;
    if io.write_all(&ask.named(&client_id.name_of(request)).bytes()).await.is_ok() {
        client_id.sent(request);
    }
    while (buffer.len() as u64) < reads {
        buffer.reserve(READ_BYTES);
        if io.read_buf(buffer).await.is_ok_and(|read| read > 0) {
            continue;
        }
        break;
    }
    client_id.tell("stalls", &[("of", request.into()), ("bytes", buffer.len().into())]);
    let mut left = pause;
    while !left.is_zero() && !C::is_broken(io) {
        super::pause(CHECK.min(left)).await;
        left = left.saturating_sub(CHECK);
    }
    let how = if left.is_zero() { "in time" } else { "reset" };
    client_id.tell("stall ends", &[("of", request.into()), ("how", how.into())]);
    let mut reader = Reader::new(io, buffer, 0);
    let on_head = |head: &super::Head| client_id.head(request, head.status, head.closes, head.of);
    let end = tokio::select! {
        biased;
        end = reader.answer(&ask.method, on_head) => end,
        () = super::pause(client_id.patience()) => return,
    };
    match end {
        Ok(_) => client_id.ended(request, &end),
        Err(failure) => client_id.response_lost(request, failure.how),
    }
}
