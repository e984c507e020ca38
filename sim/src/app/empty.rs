//! `/empty`: responses without content, by their status or because the method is `HEAD`.

use super::{HandlerGuard, number, parameter};
use http::StatusCode;
use lameduck::drill::{self, DrillResponse};
use std::time::Duration;

/// Responds with `status` after `ms`. With `content=yes` the handler gives content all the same.
pub(super) async fn empty(query: &str, guard: &HandlerGuard) -> DrillResponse {
    guard.pause(Duration::from_millis(number(query, "ms").unwrap_or(0))).await;
    let status = parameter(query, "status").and_then(|status| status.parse().ok());
    let status = status.unwrap_or(StatusCode::NO_CONTENT);
    drill::text(status, if parameter(query, "content") == Some("yes") { "content" } else { "" })
}
