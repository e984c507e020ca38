//! An HTTP/1 client that goes on sending when its connection is at its end.

use super::{
    ClientId, Connect, ExchangePacing, How, Http1Client, RequestFailure, RequestSpec,
    exchange::Reader, pause,
};
use crate::scenario::{SendsOn, SentOn};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// How long it goes on, unless the connection breaks earlier.
const SENDS_ON: Duration = Duration::from_secs(6);

/// Sends `ask`, and goes on sending as `how` says, without reading. Records `sends on` and, when it
/// stops, `ended`.
pub async fn sends_on<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    how: SendsOn,
) {
    let Ok(mut client) = Http1Client::open(client_id, connect).await else { return };
    let goes_on = if how.what == SentOn::Body {
        first_half(client_id, &mut client, ask).await
    } else {
        let done = client.exchange(client_id, ask, ExchangePacing::PROMPT).await;
        done.is_ok_and(|done| done.keeps_alive)
    };
    if !goes_on {
        return;
    }
    let connection = ("connection", client.connection.into());
    match how.what {
        SentOn::Body => {}
        SentOn::EmptyLines => pause(how.after()).await,
        SentOn::Letters => {
            let end = tokio::select! {
                biased;
                end = client.idle_end() => end.name(),
                () = pause(client_id.max_wait()) => return,
            };
            client_id.tell("closed idle", &[connection.clone(), ("how", end.into())]);
        }
    }
    client_id.tell("sends on", std::slice::from_ref(&connection));
    let sending = async {
        loop {
            pause(how.every()).await;
            let is_sent = client.io.write_all(how.piece()).await.is_ok()
                && client.io.flush().await.is_ok()
                && !C::is_broken(&client.io);
            if !is_sent {
                return;
            }
        }
    };
    let how = tokio::select! {
        biased;
        () = sending => "reset",
        () = pause(SENDS_ON) => "dropped",
    };
    client_id.tell("ended", &[connection, ("how", how.into())]);
}

/// Sends the first half of a request, and reads the response. Returns whether it is complete and
/// announces the close.
async fn first_half<Io: AsyncRead + AsyncWrite + Unpin>(
    client_id: &ClientId,
    client: &mut Http1Client<Io>,
    ask: &RequestSpec,
) -> bool {
    let Http1Client { io, buffer, connection, requests, .. } = client;
    let request = client_id.asks(ask, *connection, *requests);
    *requests += 1;
    let bytes = ask.named(&client_id.name_of(request)).bytes();
    let half = &bytes[..bytes.len() / 2];
    if io.write_all(half).await.is_err() || io.flush().await.is_err() {
        client_id.ended(request, &Err(RequestFailure::new(How::ResetBeforeHead, 0)));
        return false;
    }
    let mut reader = Reader::new(io, buffer, 0);
    let on_head = |head: &super::Head| client_id.head(request, head);
    let end = tokio::select! {
        biased;
        end = reader.answer(&ask.method, on_head) => end,
        () = pause(client_id.max_wait()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    client_id.ended(request, &end);
    end.is_ok_and(|done| done.closes)
}
