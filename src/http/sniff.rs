//! Which protocol a client speaks, by its first bytes.

/// The connection preface of HTTP/2 (RFC 9113 §3.4). No HTTP/1 request can begin with it.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// HTTP/1, or something that its parser shall refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// More bytes are needed.
    Undecided,
}

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    if bytes.starts_with(PREFACE) {
        Sniffed::Http2
    } else if PREFACE.starts_with(bytes) {
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
        }
        assert_eq!(sniff(PREFACE), Sniffed::Http2);
    }

    #[test]
    fn a_method_that_begins_like_the_preface_is_http1() {
        assert_eq!(sniff(b"PROPFIND / HTTP/1.1\r\n"), Sniffed::Http1);
        assert_eq!(sniff(b"PRI * HTTP/1.1\r\n"), Sniffed::Http1);
        assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Sniffed::Http1);
    }
}
