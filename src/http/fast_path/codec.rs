//! Plain requests and plain answers: the part of HTTP/1.1 that we read and write ourselves.
//!
//! Most requests are a `GET` without a body, and most answers are short and known whole. These need no protocol state, and so no
//! guest. Whatever is not as plain as that, or not quite right, is hyper's to read, to write or to refuse: here it is only told
//! apart, and what is written here is what hyper would have written, to the byte.

use crate::http::exchange::authority;
use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri,
    header::{self, Entry},
};
use std::{cell::RefCell, mem::MaybeUninit};

/// A plain request: a `GET` of HTTP/1.1 for a path, without a body and without anything that concerns the connection but its end.
#[derive(Debug)]
pub(crate) struct FastRequest {
    pub(crate) uri: Uri,
    /// How long its head is.
    pub(crate) len: usize,
    pub(crate) keep_alive: KeepAlive,
}

/// What a client wants of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    Yes,
    /// It said `Connection: close`.
    No,
}

/// More fields than this are not plain.
const FIELDS_MAX: usize = 32;

thread_local! {
    /// Where heads lie while their requests are spoken of; used again once nobody does.
    static HEAD_BUF: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What is made at a time.
const HEAD_BUF_SIZE: usize = 8 * 1024;

/// A copy that requests can be made of.
pub(crate) fn copy_head(read: &[u8]) -> Bytes {
    HEAD_BUF.with_borrow_mut(|head_buf| {
        if head_buf.capacity() < read.len() {
            head_buf.reserve(read.len().max(HEAD_BUF_SIZE));
        }
        head_buf.extend_from_slice(read);
        head_buf.split().freeze()
    })
}

/// The request that `read` begins with, if all of its head is there and it is plain. Its fields go into `headers`, from which others
/// are gone.
pub(crate) fn parse(
    read: &[u8],
    fields_max: usize,
    headers: &mut HeaderMap,
) -> Option<FastRequest> {
    headers.clear();
    let mut room = [MaybeUninit::uninit(); FIELDS_MAX];
    let room = &mut room[..fields_max.min(FIELDS_MAX)];
    let mut head = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(len)) = head.parse_with_uninit_headers(read, room) else {
        return None;
    };
    if head.method != Some("GET") || head.version != Some(1) {
        return None;
    }
    let target = head.path.filter(|target| target.starts_with('/'))?;
    let mut head_copy = copy_head(&read[..len]);
    let range_of = |part: &[u8]| {
        let start = part.as_ptr().addr() - read.as_ptr().addr();
        start..start + part.len()
    };
    let (mut keep_alive, mut has_host) = (KeepAlive::Yes, false);
    headers.reserve(head.headers.len());
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name.as_str() {
            // Whatever else it may list is not plain.
            "connection" if keep_alive == KeepAlive::No => return None,
            "connection" => match field.value {
                b"close" => keep_alive = KeepAlive::No,
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => return None,
            },
            // Something about a body, or about what is spoken next.
            "content-length" | "transfer-encoding" | "upgrade" | "expect" => return None,
            // Or it is refused elsewhere.
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
    // All that is left of the head is its target: one who holds it less.
    let range_of = range_of(target.as_bytes());
    head_copy.truncate(range_of.end);
    head_copy.advance(range_of.start);
    let uri = Uri::from_maybe_shared(head_copy).ok()?;
    Some(FastRequest { uri, len, keep_alive })
}

/// Writes the head of an answer whose body is `length` bytes long, if it is plain, with a `date` unless it has one. If it is not
/// plain, what was added to `out` is worth nothing.
pub(crate) fn encode<B>(
    out: &mut Vec<u8>,
    response: &mut Response<B>,
    length: u64,
    keep_alive: KeepAlive,
    date: &[u8],
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
    let (mut says_length, mut says_date) = (false, false);
    let mut digits = itoa::Buffer::new();
    let length = digits.format(length).as_bytes();
    for (name, value) in response.headers() {
        let name = name.as_str();
        match name {
            "content-length" if says_length || value.as_bytes() != length => return None,
            // Nothing to announce: it is said at the end.
            "content-length" if length == b"0" => continue,
            "content-length" => says_length = true,
            "connection" if after == KeepAlive::No || value != "close" => return None,
            "connection" => after = KeepAlive::No,
            "date" => says_date = true,
            "transfer-encoding" | "trailer" | "upgrade" => return None,
            _ => {}
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    // A client that asked for the end gets it, and is told.
    if keep_alive == KeepAlive::No && after == KeepAlive::Yes {
        return None;
    }
    if !says_length {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(length);
        out.extend_from_slice(b"\r\n");
    }
    if !says_date {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Some(after)
}

/// RFC 9110 §15.3.5, §15.3.6 and §15.4.5: 204, 205 and 304 have none, and no interim answer has.
fn may_have_content(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::RESET_CONTENT
        && status != StatusCode::NOT_MODIFIED
}
