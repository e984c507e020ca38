//! HTTP/1 clients that mean well.

use super::{
    ClientId, Connect, ExchangePacing, How, Http1Client, RequestFailure, RequestSpec,
    ResponseSummary, exchange::IdleEnd,
};
use std::time::Duration;

/// Whether a request that failed is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never: each failure is one.
    Never,
    /// Once, on a new connection, if it had been sent on a used one, is idempotent, and not a byte of an answer came
    /// (RFC 9112 §9.5, RFC 9110 §9.2.2).
    AsAllowed,
}

/// Asks one thing after the other on one connection, after a pause each. Connects anew when told to or when the connection is
/// gone; gives up when nobody listens.
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

/// Asks one thing after the other, each on its own connection, after a pause each. Goes on when nobody listens.
pub async fn connection_per_request<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
) {
    for (pause, ask) in asks {
        super::pause(pause).await;
        // The trace has the outcome.
        let _ = one_request(client_id, connect, &ask, ExchangePacing::PROMPT).await;
    }
}

/// Asks one thing on a connection of its own: half a head, a slow upload, a slow reader, a half-closed connection, as the
/// manner says.
///
/// # Errors
/// How it failed.
pub async fn one_request<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    pacing: ExchangePacing,
) -> Result<ResponseSummary, RequestFailure> {
    Http1Client::open(client_id, connect).await?.exchange(client_id, ask, pacing).await
}

/// Asks everything at once on one connection, without waiting for answers between.
///
/// # Errors
/// If it could not connect.
pub async fn pipelined<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: &[RequestSpec],
) -> Result<Vec<Result<ResponseSummary, RequestFailure>>, RequestFailure> {
    Ok(Http1Client::open(client_id, connect).await?.pipeline(client_id, asks).await)
}

/// Connects, or records why not.
pub(super) async fn connect<C: Connect>(
    client_id: &ClientId,
    route: &C,
) -> Result<C::Io, RequestFailure> {
    let connected = tokio::select! {
        biased;
        connected = route.connect() => connected.map_err(|error| RequestFailure::of_connect(&error)),
        () = super::pause(client_id.patience()) => Err(RequestFailure::new(How::TimedOut, 0)),
    };
    connected.inspect_err(|failure| client_id.not_connected(failure))
}

/// Pauses, and drops the connection if the server ends it meanwhile.
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
