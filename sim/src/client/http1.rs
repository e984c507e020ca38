//! HTTP/1 clients that follow the protocol.

use super::{
    ClientId, Connect, ExchangePacing, How, Http1Client, RequestFailure, RequestSpec,
    ResponseSummary,
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
    send_all(client_id, connect, None, asks, retry).await;
}

/// Connects, sends nothing for a while, and then the requests as [`keep_alive`] does.
pub async fn silent_first<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    silent: Duration,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
) {
    let Ok(http1_client) = Http1Client::open(client_id, connect).await else { return };
    let kept = wait_on(client_id, Some(http1_client), silent).await;
    send_all(client_id, connect, kept, asks, Retry::Never).await;
}

async fn send_all<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    mut kept: Option<Http1Client<C::Io>>,
    asks: impl IntoIterator<Item = (Duration, RequestSpec)>,
    retry: Retry,
) {
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
                    } else if is_last(&done) {
                        http1_client.last_end(client_id).await;
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
    let mut http1_client = Http1Client::open(client_id, connect).await?;
    let end = http1_client.exchange(client_id, ask, pacing).await;
    if end.is_ok_and(|done| is_last(&done)) {
        http1_client.last_end(client_id).await;
    }
    end
}

/// Sends all requests on one connection, at once or with a pause in between, without waiting for
/// responses. Some clients then keep the connection until the server ends it.
///
/// # Errors
/// If the connect failed.
pub async fn pipelined<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    asks: &[RequestSpec],
    every: Duration,
) -> Result<Vec<Result<ResponseSummary, RequestFailure>>, RequestFailure> {
    let mut http1_client = Http1Client::open(client_id, connect).await?;
    let ends = http1_client.pipeline(client_id, asks, every).await;
    let last = ends.iter().rfind(|end| end.is_ok()).and_then(|end| end.ok());
    if last.is_some_and(|done| is_last(&done)) {
        http1_client.last_end(client_id).await;
    } else if ends.iter().all(|end| end.is_ok_and(|done| done.keeps_alive))
        && client_id.awaits_last_ends()
    {
        drop(wait_on(client_id, Some(http1_client), client_id.max_wait()).await);
    }
    Ok(ends)
}

/// Whether a response is whole and the last of its connection. Who refuses an incomplete head does
/// not know that it is one of HEAD, and sends a body.
const fn is_last(done: &ResponseSummary) -> bool {
    done.closes && done.status != 408
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
        () = super::pause(client_id.max_wait()) => Err(RequestFailure::new(How::TimedOut, 0)),
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
            end = http1_client.idle_end_among_noise(client_id.noise()) => end,
            () = &mut pausing => return Some(http1_client),
        };
        client_id.tell(
            "closed idle",
            &[("connection", http1_client.connection.into()), ("how", end.name().into())],
        );
    }
    pausing.await;
    None
}

fn may_retry(ask: &RequestSpec, failure: RequestFailure) -> bool {
    failure.answer_bytes == 0 && ask.method.is_idempotent() && failure.how != How::TimedOut
}
