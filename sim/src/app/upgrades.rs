//! `/upgrade`: a connection that becomes an echo of lines.

use super::{Actor, HandlerGuard, PUSH_INTERVAL, parameter};
use crate::client;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use lameduck::{
    Body, RequestContext, StreamShutdown,
    drill::{self, DrillResponse},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Upgrades without tracking the task: during the drain only the upgraded io keeps the connection
/// open.
#[expect(clippy::disallowed_methods, reason = "that the host does without is what is practised")]
pub(super) fn upgrade(
    mut request: Request<Body>,
    query: &str,
    guard: &HandlerGuard,
) -> DrillResponse {
    let heeds = parameter(query, "heeds") == Some("yes");
    let class = parameter(query, "class");
    let (is_long, is_late) = (class.is_some(), class == Some("late"));
    let pushes = parameter(query, "pushes") == Some("yes");
    let context = request.body().context().clone();
    let upgrading = hyper::upgrade::on(&mut request);
    let (actor, handler) = (guard.actor.clone(), guard.handler);
    let conversation = UpgradedGuard { actor, handler, heeds, is_long, is_late };
    drop(tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        conversation.record("conversation begins");
        let mut io = TokioIo::new(upgraded);
        while pushes && io.write_all(client::PING).await.is_ok() {
            client::pause(PUSH_INTERVAL).await;
        }
        echo_lines(io, &context, &conversation).await;
    }));
    let mut response = switching();
    if is_long && !is_late {
        response.extensions_mut().insert(StreamShutdown::EndSpread);
    }
    response
}

pub(super) fn switching() -> DrillResponse {
    let mut response = drill::text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// Records `conversation begins` and, when the task of the upgraded connection is dropped,
/// `conversation ends`.
struct UpgradedGuard {
    actor: Actor,
    handler: u64,
    heeds: bool,
    is_long: bool,
    /// Whether it becomes a long stream only after its first line.
    is_late: bool,
}

impl UpgradedGuard {
    fn record(&self, event: &'static str) {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let fields = [
            ("handler", self.handler.into()),
            ("heeds", yes(self.heeds).into()),
            ("long", yes(self.is_long).into()),
        ];
        self.actor.trace.record(&self.actor.name, event, &fields);
    }
}

impl Drop for UpgradedGuard {
    fn drop(&mut self) {
        self.record("conversation ends");
    }
}

async fn echo_lines(
    mut io: TokioIo<hyper::upgrade::Upgraded>,
    context: &RequestContext,
    conversation: &UpgradedGuard,
) {
    let mut line = [0; client::PING.len()];
    if conversation.is_late
        && (io.read_exact(&mut line).await.is_err() || io.write_all(&line).await.is_err())
    {
        return;
    }
    loop {
        let told = async {
            match (conversation.heeds, conversation.is_long) {
                (true, true) => context.stream_end().await,
                (true, false) => context.draining().await,
                (false, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = told => {
                conversation.record("conversation told");
                let _ = io.write_all(client::FAREWELL).await;
                let _ = io.shutdown().await;
                return;
            }
            read = io.read_exact(&mut line) => {
                if read.is_err() || io.write_all(&line).await.is_err() {
                    return;
                }
            }
        }
    }
}
