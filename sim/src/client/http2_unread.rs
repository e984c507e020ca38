//! HTTP/2 clients that do not read their responses.

use super::{
    ClientId, Connect, Head, How, RequestFailure, RequestSpec, ResponseSummary,
    http2::{ClientConnection, UNREAD_WINDOW, answer, body_of, in_http2, one},
    hyper_runtime::Tracked,
    stalled::Stall,
};
use crate::task_count::counted;
use std::time::Duration;
use tokio::task::JoinSet;

/// A window that a whole unread response fits into.
const WIDE_WINDOW: u32 = 1 << 20;

/// More than the buffers of both kernels hold, and less than the window.
const UNREAD_BYTES: u32 = 900_000;

/// How long a request is left alone before its stream is reset.
const RESET_AFTER: Duration = Duration::from_millis(5);

/// Interval at which a client that reads nothing checks whether its connection was reset.
const CHECK: Duration = Duration::from_millis(10);

/// Leaves a large response unread until the socket is full, and then asks and resets without end:
/// each of `rounds` asks for `ask` `streams` times, and soon resets these streams.
pub async fn resetting<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    rounds: u64,
    streams: u64,
) {
    let tasks = Tracked::default();
    let Ok(link) = ClientConnection::open(client_id, connect, &tasks, Some(WIDE_WINDOW)).await
    else {
        return;
    };
    let send = |ask: &RequestSpec, earlier: u64| {
        let request = client_id.asks(ask, link.connection, earlier);
        let named = in_http2(&ask.named(&client_id.name_of(request)));
        let mut sender = link.sender.clone();
        async move {
            match named {
                Ok(named) => sender.send_request(named).await.ok(),
                Err(_) => None,
            }
        }
    };
    let unread = send(&RequestSpec::get(format!("/bytes?n={UNREAD_BYTES}")), 0).await;
    if let Some(unread) = &unread {
        client_id.head(0, &Head::of_http2(unread));
    }
    link.settled.hearing.set_deaf(true);
    client_id.tell("reads nothing", &[("connection", link.connection.into())]);
    for round in 0..rounds {
        let mut asked = JoinSet::new();
        for stream in 0..streams {
            asked.spawn(counted(send(ask, 1 + round * streams + stream)));
        }
        super::pause(RESET_AFTER).await;
        client_id.tell("leaves", &[("streams", streams.into())]);
        asked.shutdown().await;
    }
    let max_wait = client_id.max_wait();
    client_id.tell("reads again", &[("connection", link.connection.into())]);
    link.settled.hearing.set_deaf(false);
    let last = send(ask, 1 + rounds * streams);
    tokio::select! {
        biased;
        _ = last => {}
        () = super::pause(max_wait) => {}
    }
    drop((unread, link));
    tasks.end().await;
}

/// Sends a request, after the one before it and a pause. Then it reads nothing for a while, or
/// until the connection is reset, and after that everything. Records what
/// [`stalled`](super::stalled::stalled) records.
pub async fn stalled_http2<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    stall: Stall,
) {
    let tasks = Tracked::default();
    let Ok(mut link) = ClientConnection::open(client_id, connect, &tasks, Some(WIDE_WINDOW)).await
    else {
        return;
    };
    let mut earlier = 0;
    if let Some((before, pause)) = &stall.before {
        let served = one(client_id, &mut link.sender, before, link.connection, 0).await;
        super::pause(*pause).await;
        if served.is_none() || link.ended.is_cancelled() || link.settled.goaway.is_cancelled() {
            drop(link);
            return tasks.end().await;
        }
        earlier = 1;
    }
    link.settled.hearing.set_deaf(true);
    let request = client_id.asks(ask, link.connection, earlier);
    client_id.tell("stalls", &[("of", request.into())]);
    let mut sender = link.sender.clone();
    let response = answer(client_id, request, &mut sender, ask);
    tokio::pin!(response);
    let mut left = stall.pause;
    let mut end = None;
    while !left.is_zero() && end.is_none() {
        tokio::select! {
            biased;
            ended = &mut response => end = Some(ended),
            () = super::pause(CHECK.min(left)) => {
                left = left.saturating_sub(CHECK);
                link.settled.hearing.set_deaf(true);
            }
        }
    }
    let how = if end.is_none() { "in time" } else { "reset" };
    client_id.tell("stall ends", &[("of", request.into()), ("how", how.into())]);
    link.settled.hearing.set_deaf(false);
    match end {
        Some(end) => record_end(client_id, request, end),
        None => await_end(client_id, request, response).await,
    }
    drop(link);
    tasks.end().await;
}

/// Sends `ask`, and leaves its response unread for a while. Meanwhile it sends `other` again and
/// again on the same connection, each after a pause, and reads these responses. After that it reads
/// the rest, unless the stream was reset. Records what [`stalled`](super::stalled::stalled)
/// records.
pub async fn one_unread<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    other: &RequestSpec,
    unread_for: Duration,
    every: Duration,
) {
    let tasks = Tracked::default();
    let Ok(mut link) =
        ClientConnection::open(client_id, connect, &tasks, Some(UNREAD_WINDOW)).await
    else {
        return;
    };
    let request = client_id.asks(ask, link.connection, 0);
    let Ok(named) = in_http2(&ask.named(&client_id.name_of(request))) else { return };
    let unread = tokio::select! {
        biased;
        unread = link.sender.send_request(named) => unread,
        () = super::pause(client_id.max_wait()) => return,
    };
    if let Ok(unread) = &unread {
        client_id.head(request, &Head::of_http2(unread));
    }
    client_id.tell("stalls", &[("of", request.into())]);
    let mut earlier = 1;
    let others = async {
        loop {
            super::pause(every).await;
            if one(client_id, &mut link.sender, other, link.connection, earlier).await.is_none() {
                return std::future::pending().await;
            }
            earlier += 1;
        }
    };
    tokio::select! {
        biased;
        () = super::pause(unread_for) => {}
        () = others => {}
    }
    client_id.tell("stall ends", &[("of", request.into()), ("how", "in time".into())]);
    await_end(client_id, request, body_of(client_id, request, unread, Duration::ZERO)).await;
    drop(link);
    tasks.end().await;
}

/// Waits for the end of a response that was left unread, and records it.
async fn await_end(
    client_id: &ClientId,
    request: u64,
    response: impl Future<Output = Result<ResponseSummary, RequestFailure>>,
) {
    let end = tokio::select! {
        biased;
        end = response => end,
        () = super::pause(client_id.max_wait()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    record_end(client_id, request, end);
}

fn record_end(client_id: &ClientId, request: u64, end: Result<ResponseSummary, RequestFailure>) {
    match end {
        Ok(_) => client_id.ended(request, &end),
        Err(failure) => client_id.response_lost(request, failure.how),
    }
}

/// Sends all requests at once on one connection, and never opens the window of a stream. Records
/// how each stream ended.
pub async fn windowless<C: Connect>(client_id: &ClientId, connect: &C, asks: &[RequestSpec]) {
    let tasks = Tracked::default();
    let Ok(link) = ClientConnection::open(client_id, connect, &tasks, Some(0)).await else {
        return;
    };
    let mut requests = JoinSet::new();
    for (ask, earlier) in asks.iter().zip(0_u64..) {
        let (client_id, mut sender, ask, connection) =
            (client_id.clone(), link.sender.clone(), ask.clone(), link.connection);
        requests.spawn(async move {
            let request = client_id.asks(&ask, connection, earlier);
            let end = tokio::select! {
                biased;
                end = answer(&client_id, request, &mut sender, &ask) => end,
                () = super::pause(client_id.max_wait()) => {
                    Err(RequestFailure::new(How::TimedOut, 0))
                }
            };
            match end {
                Ok(_) => client_id.ended(request, &end),
                Err(failure) => client_id.response_lost(request, failure.how),
            }
        });
    }
    while requests.join_next().await.is_some() {}
    drop(link);
    tasks.end().await;
}
