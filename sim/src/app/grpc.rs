//! A gRPC call: some messages, then trailers with the status 0.

use super::{number, parameter};
use crate::{client, scenario::MESSAGE};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use lameduck::{
    StreamShutdown,
    drill::{DrillResponse, Paced},
};
use std::time::Duration;

/// Responds after a while with one message, or at once with the first of several. The rest comes
/// evenly over the while. Ignores every cancellation.
pub(super) async fn respond(query: &str) -> DrillResponse {
    let ms = number(query, "ms").unwrap_or(0);
    let messages = number(query, "messages").unwrap_or(0);
    let message = Bytes::from_static(&MESSAGE);
    let mut response = if let Some(pause) = ms.checked_div(messages) {
        let pauses = std::iter::once(0).chain(std::iter::repeat(pause));
        let pauses = (0..messages).zip(pauses).map(|(_, pause)| Duration::from_millis(pause));
        Paced::response(pauses.map(move |pause| (pause, message.clone())), None)
    } else {
        client::pause(Duration::from_millis(ms)).await;
        Paced::response([(Duration::ZERO, message)], None)
    };
    match parameter(query, "end") {
        Some("drain") => drop(response.extensions_mut().insert(StreamShutdown::EndAtDraining)),
        Some("spread") => drop(response.extensions_mut().insert(StreamShutdown::EndSpread)),
        Some(_) | None => {}
    }
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The trailers of a call that has succeeded.
pub(super) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(client::GRPC_STATUS, HeaderValue::from_static("0"))])
}
