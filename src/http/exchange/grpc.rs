//! gRPC over HTTP/2: which requests are calls, how long a call may take, and how errors are
//! reported to its client.
//!
//! A gRPC client reads the status of a call from the field `grpc-status` and ignores the text of a
//! 503. An error before the head is a response of only trailers: HTTP status 200, and the fields of
//! the trailers in the head. After the head it is a trailer section. gRPC-Web is not covered: its
//! trailers are part of the body.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header, response};
use std::time::Duration;

/// The status of a call that the host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcStatus {
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

/// The content type of gRPC, and of its responses of only trailers.
const CONTENT_TYPE: &str = "application/grpc";

/// The path of the call that watches the health of a service, without end.
pub(super) const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Whether a request is a gRPC call: a POST with the content type `application/grpc`, which may be
/// followed by a message format (`application/grpc+proto`) or by parameters.
pub(super) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_content_type(kind.as_bytes()))
}

fn is_content_type(kind: &[u8]) -> bool {
    kind.split_at_checked(CONTENT_TYPE.len()).is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
            && matches!(rest, [] | [b'+' | b';' | b' ', ..])
    })
}

/// Returns the timeout of a call, if its client has set a valid one.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get("grpc-timeout")?.as_bytes())
}

/// Parses at most eight digits and a unit: `H`, `M`, `S`, `m`, `u` or `n`.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Makes `head` a response of only trailers. Its body must be empty.
pub(super) fn set_trailers_only(head: &mut response::Parts, status: GrpcStatus, message: &str) {
    head.status = StatusCode::OK;
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    set_status(&mut head.headers, status, message);
}

/// Returns the trailers that end a call.
pub(super) fn trailers(status: GrpcStatus, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    set_status(&mut trailers, status, message);
    trailers
}

fn set_status(headers: &mut HeaderMap, status: GrpcStatus, message: &str) {
    headers.insert("grpc-status", HeaderValue::from(status as u16));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        headers.insert("grpc-message", message);
    }
}

/// Encodes everything except visible ASCII and space, and the percent sign.
fn percent_encoded(message: &str) -> String {
    message.bytes().fold(String::with_capacity(message.len()), |mut encoded, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_posts_with_the_content_type_of_grpc() {
        let is = |method: &Method, kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            is_call(method, &headers)
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
            "Application/gRPC",
            "application/grpc; charset=utf-8",
            "application/grpc;",
        ] {
            assert!(is(&Method::POST, kind), "{kind}");
            assert!(!is(&Method::GET, kind), "{kind}");
        }
        for kind in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpcs",
            "application/json",
            " application/grpc",
        ] {
            assert!(!is(&Method::POST, kind), "{kind}");
        }
        assert!(!is_call(&Method::POST, &HeaderMap::new()));
    }

    #[test]
    fn a_timeout_is_at_most_eight_digits_and_a_unit() {
        for (value, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("0S", Duration::ZERO),
            ("007S", Duration::from_secs(7)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("250m", Duration::from_millis(250)),
            ("250u", Duration::from_micros(250)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), Some(timeout), "{value}");
        }
        for value in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "-1S",
            "+1S",
            "1.5S",
            "1 S",
            " 1S",
            "1S ",
            "123456789S",
            "1ms",
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_response_of_only_trailers_has_status_200_and_the_status_of_the_call() {
        let (mut head, ()) = http::Response::new(()).into_parts();
        set_trailers_only(&mut head, GrpcStatus::Unavailable, "the service is shutting down");
        assert_eq!(head.status, StatusCode::OK);
        let of = |name: &str| head.headers[name].to_str().expect("it is ASCII");
        assert_eq!(of("content-type"), "application/grpc");
        assert_eq!(of("grpc-status"), "14");
        assert_eq!(of("grpc-message"), "the service is shutting down");
    }

    #[test]
    fn the_trailers_have_the_number_of_the_status_and_an_encoded_message() {
        for (status, number) in [
            (GrpcStatus::DeadlineExceeded, "4"),
            (GrpcStatus::ResourceExhausted, "8"),
            (GrpcStatus::Internal, "13"),
            (GrpcStatus::Unavailable, "14"),
        ] {
            let trailers = trailers(status, "100 % of 1 µs\nare over");
            assert_eq!(trailers["grpc-status"], number);
            assert_eq!(trailers["grpc-message"], "100 %25 of 1 %C2%B5s%0Aare over");
            assert_eq!(trailers.len(), 2);
        }
    }
}
