//! A client that sends a user's request, and then the requests that follow it.

use super::{ClientId, Connect, ExchangePacing, Http1Client, http2::call, websocket::websocket};
use crate::scenario::{Previous, Reads, Request};
use std::time::Duration;

/// Sends `request` and those that follow it on one connection, `times` times. A request follows
/// only a response that was expected. Reconnects when the server has closed the connection.
pub(crate) async fn session<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    request: &Request,
    times: u64,
    every: Duration,
) {
    let mut kept: Option<Http1Client<C::Io>> = None;
    for n in 0..times {
        super::pause(if n == 0 { Duration::ZERO } else { every }).await;
        let mut previous: Option<Previous> = None;
        for (step, request) in request.steps().enumerate() {
            if let Some(value) = previous.as_ref().and_then(|found| request.missing_value(found)) {
                client_id.tell("no value", &[("step", step.into()), ("what", value.into())]);
                break;
            }
            let spec = request.spec(previous.as_ref());
            if let Reads::WebSocket(messages) = request.reads() {
                let upgrade = websocket(client_id, connect, &spec, messages, step).await;
                let Ok(status) = upgrade else { return };
                if !status.is_some_and(|status| accepts(request, status)) {
                    break;
                }
                previous = Some(Previous::default());
                continue;
            }
            if let Reads::Grpc { least, .. } = request.reads() {
                let Some(done) = call(client_id, connect, &spec, step).await else { return };
                let status = request.status_of(done.grpc_status, done.status.into());
                if !least.map_or(request.expects(status), |least| done.grpc_messages >= least) {
                    break;
                }
                previous = Some(Previous::default());
                continue;
            }
            let open = kept.take().and_then(|mut kept| kept.is_open().then_some(kept));
            let mut http1_client = match open {
                Some(http1_client) => http1_client,
                None => match Http1Client::open(client_id, connect).await {
                    Ok(http1_client) => http1_client,
                    Err(_) => return,
                },
            };
            let done = http1_client.exchange(client_id, &spec, ExchangePacing::PROMPT).await;
            client_id.step(step);
            let Ok(done) = done else { break };
            let last = std::mem::take(&mut http1_client.last);
            if done.keeps_alive {
                kept = Some(http1_client);
            }
            if !request.expects(done.status.into()) || request.misses(&last.body).is_some() {
                break;
            }
            previous = Some(last);
        }
    }
}

/// Whether a handshake has the response that the client wants: the upgrade, or a status that was
/// named.
fn accepts(request: &Request, status: u16) -> bool {
    if request.has_statuses() { request.expects(status.into()) } else { status == 101 }
}
