//! Detection of a client's protocol by its first bytes.

use crate::runtime::Negotiated;

/// The connection preface of HTTP/2 (RFC 9113 §3.4). No HTTP/1 request can begin with it.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that the first bytes indicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// HTTP/1, or bytes that its parser refuses.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// More bytes are needed.
    Undecided,
}

/// Strips the empty lines that a client may send before a request; they are ignored (RFC 9112
/// §2.2).
pub(crate) fn after_empty_lines(bytes: &[u8]) -> &[u8] {
    match bytes.first() {
        Some(b'\r' | b'\n') => skip_empty_lines(bytes),
        Some(_) | None => bytes,
    }
}

#[cold]
fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether these bytes are only empty lines, the last of them perhaps incomplete. No request begins
/// in them.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    matches!(after_empty_lines(bytes), b"" | b"\r")
}

/// Returns the protocol that the peers agreed on, or else detects it. A client that does not speak
/// the one that it agreed on is refused by the other's parser. `bytes` must not begin with empty
/// lines.
pub(crate) fn sniff_as(negotiated: Negotiated, bytes: &[u8]) -> Sniffed {
    match negotiated {
        Negotiated::Unknown => sniff(bytes),
        Negotiated::Http1 if is_blank(bytes) => Sniffed::Undecided,
        Negotiated::Http1 => Sniffed::Http1,
        // hyper, once it has the connection, does not tell when its preface is incomplete.
        Negotiated::Http2 if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) => {
            Sniffed::Undecided
        }
        Negotiated::Http2 => Sniffed::Http2,
    }
}

/// Detects the protocol. `bytes` must not begin with empty lines.
pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    if bytes.starts_with(PREFACE) {
        Sniffed::Http2
    } else if PREFACE.starts_with(bytes) || bytes == b"\r" {
        Sniffed::Undecided
    } else {
        Sniffed::Http1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_the_preface_is_undecided_and_the_whole_is_http2() {
        for end in 0..PREFACE.len() {
            assert_eq!(sniff(&PREFACE[..end]), Sniffed::Undecided, "{end} bytes");
            let agreed = sniff_as(Negotiated::Http2, &PREFACE[..end]);
            assert_eq!(agreed, Sniffed::Undecided, "{end} bytes");
        }
        assert_eq!(sniff_as(Negotiated::Http2, PREFACE), Sniffed::Http2);
        assert_eq!(sniff(PREFACE), Sniffed::Http2);
    }

    #[test]
    fn empty_lines_are_no_request() {
        assert_eq!(after_empty_lines(b"\r\n\n\r\nGET"), b"GET");
        assert_eq!(after_empty_lines(b"\rGET"), b"\rGET", "a bare CR is no line");
        for blank in [&b""[..], b"\r", b"\r\n", b"\n", b"\n\r\n\r"] {
            assert!(is_blank(blank), "{}", blank.escape_ascii());
        }
        assert!(!is_blank(b"\r\r") && !is_blank(b"\r\nG") && !is_blank(b" "));
        assert_eq!(sniff(b"\r"), Sniffed::Undecided);
    }

    // By the agreed protocol, half an empty line would be the head of a request.
    #[test]
    fn half_an_empty_line_begins_no_request_whatever_was_agreed_on() {
        for blank in [&b""[..], b"\r"] {
            assert_eq!(sniff_as(Negotiated::Unknown, blank), Sniffed::Undecided);
            assert_eq!(sniff_as(Negotiated::Http1, blank), Sniffed::Undecided);
        }
        assert_eq!(sniff_as(Negotiated::Http1, b"G"), Sniffed::Http1);
        assert_eq!(sniff_as(Negotiated::Http1, PREFACE), Sniffed::Http1, "its parser refuses it");
        assert_eq!(sniff_as(Negotiated::Http2, b"GET"), Sniffed::Http2, "its parser refuses it");
    }

    #[test]
    fn a_method_that_begins_like_the_preface_is_http1() {
        assert_eq!(sniff(b"PROPFIND / HTTP/1.1\r\n"), Sniffed::Http1);
        assert_eq!(sniff(b"PRI * HTTP/1.1\r\n"), Sniffed::Http1);
        assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Sniffed::Http1);
    }
}
