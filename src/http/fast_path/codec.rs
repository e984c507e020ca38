//! The part of HTTP/1.1 that the fast path reads and writes itself.
//!
//! Most requests have no body or a short one, which arrives with its head, and most responses are
//! complete at once. They need no protocol state, and so no hyper connection. All other input,
//! invalid input included, is left to hyper to read or refuse; this module only recognises it. A
//! response that is written here equals hyper's byte for byte; all others are left to hyper, too.

use crate::http::{exchange::authority, server::caps::Caps};
use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri,
    header::{self, Entry},
};
use std::{cell::RefCell, mem::MaybeUninit};

/// A fast-path request: one of HTTP/1.1 for a path, which has arrived whole. Of the fields that
/// concern the connection it may only request its close.
#[derive(Debug)]
pub(super) struct FastRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// `None` if the request has no body, or an empty one.
    pub(super) body: Option<Bytes>,
    /// Length of the head and of the body in bytes.
    pub(super) len: usize,
    pub(super) keep_alive: KeepAlive,
}

/// Whether the connection stays open after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    Yes,
    /// The request or the response carries `Connection: close`.
    No,
}

thread_local! {
    /// Buffer for the heads of requests. Its memory is reused once no request refers to it.
    static HEAD_BUF: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Bytes that are allocated at a time.
const HEAD_BUF_SIZE: usize = 8 * 1024;

/// Copies `read` into memory that the parts of a request share.
pub(super) fn copy_head(read: &[u8]) -> Bytes {
    HEAD_BUF.with_borrow_mut(|head_buf| {
        if head_buf.capacity() < read.len() {
            head_buf.reserve(read.len().max(HEAD_BUF_SIZE));
        }
        head_buf.extend_from_slice(read);
        head_buf.split().freeze()
    })
}

/// Parses the request at the beginning of `read`. Returns `None` if it is incomplete or not one for
/// the fast path. Replaces the contents of `headers` by its fields.
pub(super) fn parse(
    read: &[u8],
    fields_max: usize,
    headers: &mut HeaderMap,
) -> Option<FastRequest> {
    headers.clear();
    let mut fields = [MaybeUninit::uninit(); Caps::DEFAULT.fast_path_fields_max.get()];
    let fields_max = fields_max.min(fields.len());
    let fields = &mut fields[..fields_max];
    let mut head = httparse::Request::new(&mut []);
    let head_len = match head.parse_with_uninit_headers(read, fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Err(httparse::Error::TooManyHeaders) => {
            Caps::DEFAULT.fast_path_fields_max.note(usize::MAX);
            return None;
        }
        Ok(httparse::Status::Partial) | Err(_) => return None,
    };
    if head.version != Some(1) {
        return None;
    }
    let method = method(head.method?)?;
    let target = head.path.filter(|target| target.starts_with('/'))?;
    let body_len = body_length(head.headers)?;
    let len = head_len.checked_add(body_len).filter(|len| *len <= read.len())?;
    let mut head_copy = copy_head(&read[..head_len]);
    let range_of = |part: &[u8]| {
        let start = part.as_ptr().addr() - read.as_ptr().addr();
        start..start + part.len()
    };
    let (mut keep_alive, mut has_host) = (KeepAlive::Yes, false);
    headers.reserve(head.headers.len());
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name.as_str() {
            // Any further option is left to hyper.
            "connection" if keep_alive == KeepAlive::No => return None,
            "connection" => match field.value {
                b"close" => keep_alive = KeepAlive::No,
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => return None,
            },
            // These announce a body of unknown length or a change of protocol.
            "transfer-encoding" | "upgrade" | "expect" => return None,
            // An invalid or repeated host is refused by `ConnectionService`, which hyper calls.
            "host" if has_host || !authority::is_valid(field.value) => return None,
            "host" => has_host = true,
            _ => {}
        }
        headers.append(
            name,
            HeaderValue::from_maybe_shared(head_copy.slice(range_of(field.value))).ok()?,
        );
    }
    if !has_host {
        return None;
    }
    // Shrink this handle to the request target instead of slicing it: one reference to the buffer
    // fewer.
    let range_of = range_of(target.as_bytes());
    head_copy.truncate(range_of.end);
    head_copy.advance(range_of.start);
    let uri = Uri::from_maybe_shared(head_copy).ok()?;
    let body = (body_len > 0).then(|| copy_head(&read[head_len..len]));
    Some(FastRequest { method, uri, body, len, keep_alive })
}

/// Returns the method of a fast-path request. hyper frames the responses to `HEAD` and `CONNECT`
/// differently.
fn method(name: &str) -> Option<Method> {
    match name {
        "GET" => Some(Method::GET),
        "POST" => Some(Method::POST),
        "PUT" => Some(Method::PUT),
        "PATCH" => Some(Method::PATCH),
        "DELETE" => Some(Method::DELETE),
        _ => None,
    }
}

/// Returns the length of a body by the fields of its head; `None` if there are several lengths, or
/// one that is not made of digits only.
fn body_length(fields: &[httparse::Header<'_>]) -> Option<usize> {
    let is_length =
        |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
    let mut lengths = fields.iter().filter(is_length);
    let Some(length) = lengths.next() else { return Some(0) };
    if lengths.next().is_some() || !length.value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(length.value).ok()?.parse().ok()
}

/// Writes the head of a response whose body is `length` bytes long. `date_and_end` follows its
/// fields unless they have a date. Returns `None` if the response must be left to hyper; then the
/// bytes added to `out` are invalid.
pub(super) fn encode<B>(
    out: &mut Vec<u8>,
    response: &mut Response<B>,
    length: u64,
    keep_alive: KeepAlive,
    date_and_end: &[u8],
) -> Option<KeepAlive> {
    let status = response.status();
    if response.extensions().get::<hyper::ext::ReasonPhrase>().is_some() {
        return None;
    }
    if keep_alive == KeepAlive::No
        && let Entry::Vacant(connection) = response.headers_mut().entry(header::CONNECTION)
    {
        connection.insert(HeaderValue::from_static("close"));
    }
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = status.canonical_reason().filter(|_| may_have_content(status))?;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let mut after = KeepAlive::Yes;
    let (mut has_length, mut has_date) = (false, false);
    let mut digits = itoa::Buffer::new();
    let length = digits.format(length).as_bytes();
    for (name, value) in response.headers() {
        let name = name.as_str();
        match name {
            "content-length" if has_length || value.as_bytes() != length => return None,
            // A length of zero is written at the end, as by hyper.
            "content-length" if length == b"0" => continue,
            "content-length" => has_length = true,
            "connection" if after == KeepAlive::No || value != "close" => return None,
            "connection" => after = KeepAlive::No,
            "date" => has_date = true,
            "transfer-encoding" | "trailer" | "upgrade" => return None,
            _ => {}
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    // The client requested the close, so the response must announce it.
    if keep_alive == KeepAlive::No && after == KeepAlive::Yes {
        return None;
    }
    if !has_length {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(length);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(if has_date { b"\r\n" } else { date_and_end });
    Some(after)
}

/// Whether a response with this status may have content. 204, 205 and 304 may not (RFC 9110
/// §15.3.5, §15.3.6 and §15.4.5), and neither may interim responses.
fn may_have_content(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::RESET_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;

    // A handler's `connection: keep-alive` was taken for `close`: the connection ended after a
    // response that did not announce it, and the client's next request was lost (P4).
    #[test]
    fn only_one_connection_field_with_close_announces_the_close() {
        for (values, after) in [
            (&[][..], Some(KeepAlive::Yes)),
            (&["close"], Some(KeepAlive::No)),
            (&["keep-alive"], None),
            (&["upgrade"], None),
            (&["close", "close"], None),
            (&["close", "keep-alive"], None),
        ] {
            let mut response = Response::new(());
            for value in values {
                response.headers_mut().append(header::CONNECTION, HeaderValue::from_static(value));
            }
            let mut out = Vec::new();
            let date = b"date: x\r\n\r\n";
            let encoded = encode(&mut out, &mut response, 2, KeepAlive::Yes, date);
            assert_eq!(encoded, after, "{values:?}: {}", out.escape_ascii());
        }
    }
}
