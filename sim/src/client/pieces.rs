//! An HTTP/1 client whose last request has a head that comes in pieces.

use super::{
    ClientId, Connect, ExchangePacing, How, Http1Client, RequestFailure, RequestSpec,
    exchange::{IdleEnd, Reader},
    pause,
};
use crate::scenario::HeadInPieces;
use std::{future, time::Duration};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Sends `ask` as often as `how` says, and then `next` in pieces. Stops if the connection ends, or
/// if a response announces that.
pub async fn head_in_pieces<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    next: &RequestSpec,
    how: HeadInPieces,
) {
    let Ok(mut client) = Http1Client::open(client_id, connect).await else { return };
    let whole = if how.idle_ms.is_none() { how.earlier.saturating_sub(1) } else { how.earlier };
    for _ in 0..whole {
        let done = client.exchange(client_id, ask, ExchangePacing::PROMPT).await;
        if !done.is_ok_and(|done| done.keeps_alive) {
            return;
        }
    }
    let idle = Duration::from_millis(how.idle_ms.unwrap_or(0));
    if how.earlier > 0 && how.idle_ms.is_some() && !stays(client_id, &mut client, idle).await {
        return;
    }
    let with_the_last = (how.earlier > 0 && how.idle_ms.is_none()).then_some(ask);
    in_pieces::<C>(client_id, &mut client, with_the_last, next, how).await;
}

/// Pauses. Returns whether the connection is still open then.
async fn stays<Io: tokio::io::AsyncRead + AsyncWrite + Unpin>(
    client_id: &ClientId,
    client: &mut Http1Client<Io>,
    idle: Duration,
) -> bool {
    let end = tokio::select! {
        biased;
        end = client.idle_end() => end,
        () = pause(idle) => return true,
    };
    let how = match end {
        IdleEnd::Fin => "fin",
        IdleEnd::Reset => "reset",
        IdleEnd::Unasked => "unasked-bytes",
    };
    client_id.tell("closed idle", &[("connection", client.connection.into()), ("how", how.into())]);
    false
}

/// Sends `next` in pieces, the first of them in one write with the request `before`, or with its
/// second half.
async fn in_pieces<C: Connect>(
    client_id: &ClientId,
    client: &mut Http1Client<C::Io>,
    before: Option<&RequestSpec>,
    next: &RequestSpec,
    how: HeadInPieces,
) {
    let Http1Client { io, buffer, connection, requests, .. } = client;
    let mut asks = |ask: &RequestSpec| {
        let request = client_id.asks(ask, *connection, *requests);
        *requests += 1;
        (request, ask.named(&client_id.name_of(request)))
    };
    let before = before.map(&mut asks);
    let (request, named) = asks(next);
    let mut pieces = how.pieces(&named.bytes(), named.head().len());
    let mut half = Vec::new();
    if let Some((_, before)) = &before {
        let mut rest = before.bytes();
        if how.before_ms > 0 {
            half = rest.drain(..rest.len() / 2).collect();
        }
        pieces[0] = [rest, pieces[0].clone()].concat();
    } else if how.in_one_record && C::send_in_parts(io, how.parts(pieces.len())) {
        pieces = vec![named.bytes()];
    }
    let (read, mut write) = tokio::io::split(io);
    let mut reader = Reader::new(read, buffer, client_id.keeps());
    let sending = async {
        if !half.is_empty() {
            // If it fails, the next write does, too.
            let _ = write.write_all(&half).await;
            let _ = write.flush().await;
            pause(Duration::from_millis(how.before_ms)).await;
        }
        for (n, piece) in pieces.iter().enumerate() {
            if n > 0 {
                pause(Duration::from_millis(how.every_ms)).await;
            }
            if write.write_all(piece).await.is_err() || write.flush().await.is_err() {
                break;
            }
            if let Some((before, _)) = before.as_ref().filter(|_| n == 0) {
                client_id.sent(*before);
            }
            if how.is_whole && n + 1 == pieces.len() {
                client_id.sent(request);
            }
        }
        future::pending::<()>().await;
    };
    let receiving = async {
        for (request, ask) in before.iter().map(|(n, ask)| (*n, ask)).chain([(request, &named)]) {
            reader.seen = 0;
            let on_head = |head: &super::Head| client_id.head(request, head);
            let end = reader.answer(&ask.method, on_head).await;
            client_id.ended(request, &end);
            if end.is_err() || end.is_ok_and(|done| done.closes) {
                return request;
            }
        }
        request
    };
    let last = tokio::select! {
        biased;
        () = sending => return,
        last = receiving => Some(last),
        () = pause(client_id.max_wait()) => None,
    };
    match last {
        Some(last) if last == request => {}
        Some(_) => client_id.ended(request, &Err(RequestFailure::new(How::EndBeforeHead, 0))),
        None => client_id.ended(request, &Err(RequestFailure::new(How::TimedOut, 0))),
    }
}
