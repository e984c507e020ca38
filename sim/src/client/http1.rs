//! HTTP/1 clients that mean well.

use super::{Ask, Caller, Completion, Connect, Conversation, Failure, How, Manner, exchange::IdleEnd};
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
    caller: &Caller,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, Ask)>,
    retry: Retry,
) {
    let mut kept: Option<Conversation<C::Io>> = None;
    for (pause, ask) in asks {
        kept = wait_on(caller, kept, pause).await;
        let mut attempts = 0;
        loop {
            let mut conversation = match kept.take() {
                Some(conversation) => conversation,
                None => match Conversation::open(caller, connect).await {
                    Ok(conversation) => conversation,
                    Err(_) => return,
                },
            };
            let used = conversation.requests > 0;
            match conversation.exchange(caller, &ask, Manner::PROMPT).await {
                Ok(done) => {
                    if done.keeps_alive {
                        kept = Some(conversation);
                    }
                    break;
                }
                Err(failure) if retry == Retry::AsAllowed && used && attempts == 0 && may_retry(&ask, failure) => {
                    attempts += 1;
                    caller.tell("retries", &[("target", ask.target.as_str().into())]);
                }
                Err(_) => break,
            }
        }
    }
}

/// Asks one thing after the other, each on its own connection, after a pause each. Goes on when nobody listens.
pub async fn connection_per_request<C: Connect>(
    caller: &Caller,
    connect: &C,
    asks: impl IntoIterator<Item = (Duration, Ask)>,
) {
    for (pause, ask) in asks {
        super::pause(pause).await;
        // The trace has the outcome.
        let _ = one_request(caller, connect, &ask, Manner::PROMPT).await;
    }
}

/// Asks one thing on a connection of its own: half a head, a slow upload, a slow reader, a half-closed connection, as the
/// manner says.
///
/// # Errors
/// How it failed.
pub async fn one_request<C: Connect>(
    caller: &Caller,
    connect: &C,
    ask: &Ask,
    manner: Manner,
) -> Result<Completion, Failure> {
    Conversation::open(caller, connect).await?.exchange(caller, ask, manner).await
}

/// Asks everything at once on one connection, without waiting for answers between.
///
/// # Errors
/// If it could not connect.
pub async fn pipelined<C: Connect>(
    caller: &Caller,
    connect: &C,
    asks: &[Ask],
) -> Result<Vec<Result<Completion, Failure>>, Failure> {
    Ok(Conversation::open(caller, connect).await?.pipeline(caller, asks).await)
}

/// Connects, or records why not.
pub(super) async fn connect<C: Connect>(caller: &Caller, route: &C) -> Result<C::Io, Failure> {
    let connected = tokio::select! {
        biased;
        connected = route.connect() => connected.map_err(|error| Failure::of_connect(&error)),
        () = super::pause(caller.patience()) => Err(Failure::new(How::TimedOut, 0)),
    };
    connected.inspect_err(|failure| caller.not_connected(failure))
}

/// Pauses, and drops the connection if the server ends it meanwhile.
async fn wait_on<Io>(caller: &Caller, kept: Option<Conversation<Io>>, pause: Duration) -> Option<Conversation<Io>>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let pausing = super::pause(pause);
    tokio::pin!(pausing);
    if let Some(mut conversation) = kept {
        let end = tokio::select! {
            biased;
            end = conversation.idle_end() => end,
            () = &mut pausing => return Some(conversation),
        };
        let how = match end {
            IdleEnd::Fin => "fin",
            IdleEnd::Reset => "reset",
            IdleEnd::Unasked => "unasked-bytes",
        };
        caller.tell("closed idle", &[("connection", conversation.connection.into()), ("how", how.into())]);
    }
    pausing.await;
    None
}

fn may_retry(ask: &Ask, failure: Failure) -> bool {
    failure.answer_bytes == 0 && ask.method.is_idempotent() && failure.how != How::TimedOut
}
