//! `/closes`: responses whose handler announces the close of their connection.

use super::{HandlerGuard, number, parameter};
use crate::{content, scenario::CloseOption};
use http::{HeaderValue, StatusCode, header};
use lameduck::drill::{self, DrillResponse, Paced};
use std::time::Duration;

/// Responds after `ms` with `n` bytes, and with the fields `Connection` that `says` stands for.
pub(super) async fn closes(query: &str, guard: &HandlerGuard) -> DrillResponse {
    guard.pause(Duration::from_millis(number(query, "ms").unwrap_or(0))).await;
    let bytes = number(query, "n").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let bytes = content::body(bytes);
    let mut response = if parameter(query, "chunked").is_some() {
        Paced::response([(Duration::ZERO, bytes)], None)
    } else {
        drill::text(StatusCode::OK, bytes)
    };
    for options in CloseOption::fields(parameter(query, "says").unwrap_or_default()) {
        response.headers_mut().append(header::CONNECTION, HeaderValue::from_static(options));
    }
    response
}
