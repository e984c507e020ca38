//! An HTTP/1 client that stops reading its responses for a while.

use super::{ClientId, Connect, ExchangePacing, Http1Client, RequestSpec, exchange::Reader};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Interval at which the client checks whether its connection was reset.
const CHECK: Duration = Duration::from_millis(10);

/// More than a connection's receive buffer holds, so that one read empties it.
const READ_BYTES: usize = 256 * 1024;

/// What a client does before, and how long it then reads nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// A request on the same connection, and the pause after its response.
    pub before: Option<(RequestSpec, Duration)>,
    /// Number of requests that it sends at once.
    pub requests: u64,
    /// Pause after the first half of them, if it does not send all at once.
    pub between: Option<Duration>,
    /// Bytes of the responses that it reads first.
    pub reads: u64,
    /// How long it then reads nothing.
    pub pause: Duration,
}

/// Sends `ask`, and reads some bytes of the response. Then it reads nothing for a while, or until
/// the connection is reset, and after that the rest. A response that was cut is recorded as
/// `response lost`. Of several responses the first one stands for all in the records of the stall.
pub async fn stalled<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    stall: Stall,
) {
    let Ok(mut http1_client) = Http1Client::open(client_id, connect).await else { return };
    if let Some((before, pause)) = &stall.before {
        let done = http1_client.exchange(client_id, before, ExchangePacing::PROMPT).await;
        if !done.is_ok_and(|done| done.keeps_alive) {
            return;
        }
        super::pause(*pause).await;
        if !http1_client.is_open() {
            return;
        }
    }
    let asked: Vec<(u64, RequestSpec)> = (0..stall.requests.max(1))
        .map(|n| {
            let earlier = http1_client.requests + n;
            let request = client_id.asks(ask, http1_client.connection, earlier);
            (request, ask.named(&client_id.name_of(request)))
        })
        .collect();
    let first = asked[0].0;
    let Http1Client { io, buffer, .. } = &mut http1_client;
    let at_once = if stall.between.is_some() { asked.len().div_ceil(2) } else { asked.len() };
    for (n, asked) in asked.chunks(at_once).enumerate() {
        let bytes = asked.iter().flat_map(|(_, ask)| ask.bytes()).collect::<Vec<u8>>();
        super::pause(stall.between.filter(|_| n > 0).unwrap_or_default()).await;
        if io.write_all(&bytes).await.is_ok() {
            asked.iter().for_each(|(request, _)| client_id.sent(*request));
        }
    }
    while (buffer.len() as u64) < stall.reads {
        buffer.reserve(READ_BYTES);
        if io.read_buf(buffer).await.is_ok_and(|read| read > 0) {
            continue;
        }
        break;
    }
    client_id.tell("stalls", &[("of", first.into()), ("bytes", buffer.len().into())]);
    let mut left = stall.pause;
    while !left.is_zero() && !C::is_broken(io) {
        super::pause(CHECK.min(left)).await;
        left = left.saturating_sub(CHECK);
    }
    let how = if left.is_zero() { "in time" } else { "reset" };
    client_id.tell("stall ends", &[("of", first.into()), ("how", how.into())]);
    let mut reader = Reader::new(io, buffer, 0);
    for (request, ask) in &asked {
        let on_head = |head: &super::Head| client_id.head(*request, head);
        let end = tokio::select! {
            biased;
            end = reader.answer(&ask.method, on_head) => end,
            () = super::pause(client_id.max_wait()) => return,
        };
        match end {
            Ok(_) => client_id.ended(*request, &end),
            Err(failure) => return client_id.response_lost(*request, failure.how),
        }
    }
}
