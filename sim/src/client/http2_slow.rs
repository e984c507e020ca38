//! An HTTP/2 client that reads its response slowly, and makes progress all the time.

use super::{
    ClientId, Connect, How, RequestFailure, RequestSpec,
    http2::{ClientConnection, answer_to, in_http2},
    hyper_runtime::Tracked,
};
use std::time::Duration;

/// Sends `ask`, and pauses after each part of its response. The server may send no more than
/// `window` bytes that were not read.
pub async fn read_slowly<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    window: u32,
    every: Duration,
) {
    let tasks = Tracked::default();
    let Ok(link) = ClientConnection::open(client_id, connect, &tasks, Some(window)).await else {
        return;
    };
    let request = client_id.asks(ask, link.connection, 0);
    let mut sender = link.sender.clone();
    let reading = async {
        let named = in_http2(&ask.named(&client_id.name_of(request)))?;
        answer_to(client_id, request, &mut sender, named, every).await
    };
    let end = tokio::select! {
        biased;
        end = reading => end,
        () = super::pause(client_id.max_wait()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    client_id.ended(request, &end);
    drop(link);
    tasks.end().await;
}
