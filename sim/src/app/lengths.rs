//! `/breaks`, `/mismatch` and `/padded`: bodies that fail, or whose length is not the stated one.

use super::{number, parameter};
use bytes::Bytes;
use http::{StatusCode, header};
use lameduck::drill::{self, CHUNK_INTERVAL, DrillResponse, Paced};
use std::time::Duration;

/// Sends a head and a chunk, then panics.
pub(super) fn breaks() -> DrillResponse {
    let chunk = (Duration::ZERO, Bytes::from_static(b"as far as this\n"));
    Paced::response([chunk, (CHUNK_INTERVAL, Bytes::new())], None)
}

/// Sends four bytes, whatever the head says.
pub(super) fn mismatch(query: &str) -> DrillResponse {
    let mut response = if parameter(query, "late") == Some("yes") {
        let half = Bytes::from_static(b"12");
        Paced::response([(Duration::ZERO, half.clone()), (CHUNK_INTERVAL, half)], None)
    } else {
        drill::text(StatusCode::OK, "1234")
    };
    let says = parameter(query, "says").and_then(|says| says.parse::<u64>().ok()).unwrap_or(0);
    response.headers_mut().insert(header::CONTENT_LENGTH, says.into());
    response
}

/// Sends four bytes, then empty frames, then one byte more if the query has `extra=yes`.
pub(super) fn padded(query: &str) -> DrillResponse {
    let frames = number(query, "frames").unwrap_or(0);
    let empty = (0..frames).map(|_| Bytes::new());
    let extra = (parameter(query, "extra") == Some("yes")).then(|| Bytes::from_static(b"5"));
    let all = std::iter::once(Bytes::from_static(b"1234")).chain(empty).chain(extra);
    let mut response = Paced::response(all.map(|bytes| (Duration::ZERO, bytes)), None);
    response.headers_mut().insert(header::CONTENT_LENGTH, 4.into());
    response
}
