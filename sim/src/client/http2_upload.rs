//! An HTTP/2 client whose request body comes in pieces.
#![expect(clippy::disallowed_methods, reason = "a client's pauses are in the world's time")]

use super::{
    ClientId, Connect, How, RequestFailure, RequestSpec,
    http2::{ClientConnection, answer_to, in_http2_with},
    hyper_runtime::Tracked,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

/// Sends one request whose body comes in pieces of `bytes`, each after a pause.
pub async fn uploading<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    bytes: usize,
    every: Duration,
) {
    let tasks = Tracked::default();
    let Ok(link) = ClientConnection::open(client_id, connect, &tasks, None).await else {
        return;
    };
    let pause = Box::pin(tokio::time::sleep(every));
    let body = Pieces { left: ask.body.clone(), bytes, every, pause }.boxed_unsync();
    let request = client_id.asks(ask, link.connection, 0);
    let mut sender = link.sender.clone();
    let named = in_http2_with(&ask.named(&client_id.name_of(request)), body);
    let asked = async { answer_to(client_id, request, &mut sender, named?, Duration::ZERO).await };
    let end = tokio::select! {
        biased;
        end = asked => end,
        () = super::pause(client_id.max_wait()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    client_id.ended(request, &end);
    drop(link);
    tasks.end().await;
}

/// A body in pieces, with a pause before each.
struct Pieces {
    left: Bytes,
    bytes: usize,
    every: Duration,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.pause.as_mut().poll(cx));
        self.pause = Box::pin(tokio::time::sleep(self.every));
        let bytes = self.bytes.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(bytes)))))
    }
}
