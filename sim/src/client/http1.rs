//! HTTP/1 clients that follow the protocol.

use super::{
    ClientId, Connect, ExchangePacing, How, Http1Client, RequestFailure, RequestSpec,
    ResponseSummary, exchange::IdleEnd,
};
use std::time::Duration;

/// Whether a failed request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    Never,
    /// Once, on a new connection. The request must have been sent on a reused connection and be
    /// idempotent, and no byte of a response may have been received (RFC 9112 §9.5, RFC 9110
    /// §9.2.2).
    AsAllowed,
}

/// Sends requests one after the other on one connection, each after a pause. Reconnects when a
/// response announced a close or when the connection has ended. Stops when a connect fails.
pub async fn keep_alive<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
    retry: Retry,
) {
    let mut kept: Option<Http1Client<C::Io>> = None;
    for (pause, ask) in asks {
        kept = wait_on(client_id, kept, pause).await;
        let mut attempts = 0;
        loop {
            let mut http1_client = match kept.take() {
                Some(http1_client) => http1_client,
                None => match Http1Client::open(client_id, connect).await {
                    Ok(http1_client) => http1_client,
                    Err(_) => return,
                },
            };
            let used = http1_client.requests > 0;
            match http1_client.exchange(client_id, &ask, ExchangePacing::PROMPT).await {
                Ok(done) => {
                    if done.keeps_alive {
                        kept = Some(http1_client);
                    }
                    break;
                }
                Err(failure)
                    if retry == Retry::AsAllowed
                        && used
                        && attempts == 0
                        && may_retry(&ask, failure) =>
                {
                    attempts += 1;
                    client_id.tell("retries", &[("target", ask.target.as_str().into())]);
                }
                Err(_) => break,
            }
        }
    }
}

/// Sends requests one after the other, each on its own connection and after a pause. Continues when
/// a connect fails.
pub async fn connection_per_request<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
) {
    for (pause, ask) in asks {
        super::pause(pause).await;
        // The outcome is in the trace.
        let _ = one_request(client_id, connect, &ask, ExchangePacing::PROMPT).await;
    }
}

/// Sends one request on its own connection, paced as `pacing` says: in two halves, with a slow
/// upload, with a slow read, or with a half-close.
///
/// # Errors
/// How the request failed.
pub async fn one_request<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    pacing: ExchangePacing,
) -> Result<ResponseSummary, RequestFailure> {
    Http1Client::open(client_id, connect).await?.exchange(client_id, ask, pacing).await
}

/// Sends all requests at once on one connection, without waiting for responses in between.
///
/// # Errors
/// If the connect failed.
pub async fn pipelined<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: &[RequestSpec],
) -> Result<Vec<Result<ResponseSummary, RequestFailure>>, RequestFailure> {
    Ok(Http1Client::open(client_id, connect).await?.pipeline(client_id, asks).await)
}

/// Connects, or records the failure.
pub(super) async fn connect<C: Connect>(
    client_id: &ClientId,
    route: &C,
) -> Result<C::Io, RequestFailure> {
    let connected = tokio::select! {
        biased;
        connected = route.connect() => {
            connected.map_err(|error| RequestFailure::of_connect(&error))
        }
        () = super::pause(client_id.patience()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    connected.inspect_err(|failure| client_id.not_connected(failure))
}

/// Pauses. Drops the connection if the server ends it in the meantime.
async fn wait_on<Io>(
    client_id: &ClientId,
    kept: Option<Http1Client<Io>>,
    pause: Duration,
) -> Option<Http1Client<Io>>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let pausing = super::pause(pause);
    tokio::pin!(pausing);
    if let Some(mut http1_client) = kept {
        let end = tokio::select! {
            biased;
            end = http1_client.idle_end() => end,
            () = &mut pausing => return Some(http1_client),
        };
        let how = match end {
            IdleEnd::Fin => "fin",
            IdleEnd::Reset => "reset",
            IdleEnd::Unasked => "unasked-bytes",
        };
        client_id.tell(
            "closed idle",
            &[("connection", http1_client.connection.into()), ("how", how.into())],
        );
    }
    pausing.await;
    None
}

fn may_retry(ask: &RequestSpec, failure: RequestFailure) -> bool {
    failure.answer_bytes == 0 && ask.method.is_idempotent() && failure.how != How::TimedOut
}
