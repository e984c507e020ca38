//! The head fields that the host adds to a response.

use super::{
    connection_state::Protocol, framing::Content, in_flight::InFlight, response_body::ResponseBody,
};
use crate::http::server::date;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{self, Entry},
};
use http_body::Body as HttpBody;

pub(super) fn add_date(headers: &mut HeaderMap, in_flight: &InFlight) {
    headers.insert(header::DATE, date::header(in_flight.server().clock.wall()));
}

/// Adds the headers that every response carries for its connection.
pub(super) fn add_standard_headers<B>(
    response: &mut Response<B>,
    in_flight: &InFlight,
    version: Version,
) {
    // P4: an HTTP/1 response announces that it is the last on its connection (RFC 9112 §9.6).
    // HTTP/2 has GOAWAY for that and forbids the header (RFC 9113 §8.2.2).
    let announces = in_flight.connection().on_response_head();
    let is_last = announces || in_flight.request().is_body_end_unclear();
    if is_last && !in_flight.request().switches_protocol(response.status()) {
        in_flight.connection().responses.set_closes();
        announce_close(response, version);
    }
}

/// Makes this HTTP/1 response the last on its connection.
pub(super) fn announce_close<B>(response: &mut Response<B>, version: Version) {
    if version >= Version::HTTP_2 {
        return;
    }
    if let Entry::Vacant(connection) = response.headers_mut().entry(header::CONNECTION) {
        connection.insert(HeaderValue::from_static("close"));
    } else {
        add_close(response.headers_mut());
    }
    if version == Version::HTTP_10 {
        // hyper would otherwise add `keep-alive`, since it has not read the header yet.
        *response.version_mut() = Version::HTTP_10;
    }
}

/// Adds `close` to the handler's connection options, which name fields of its response, such as
/// `Upgrade` (RFC 9110 §7.6.1).
#[cold]
fn add_close(headers: &mut HeaderMap) {
    let replaced: [&[u8]; 2] = [b"close", b"keep-alive"];
    let options = connection_options(headers);
    let others =
        options.filter(|option| !replaced.iter().any(|name| name.eq_ignore_ascii_case(option)));
    let options = others.chain([&b"close"[..]]).collect::<Vec<_>>().join(&b", "[..]);
    if let Ok(options) = HeaderValue::from_bytes(&options) {
        headers.insert(header::CONNECTION, options);
    }
    headers.remove("keep-alive");
}

/// Whether the head of an HTTP/1 response announces that it is the last on its connection.
pub(super) fn announces_close(headers: &HeaderMap) -> bool {
    connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"close"))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(header::CONNECTION).iter();
    let options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// Sets the length fields of a response whose status or method allows no content.
pub(super) fn without_content<B>(
    mut response: Response<B>,
    content: Content,
    in_flight: InFlight,
) -> Response<ResponseBody<B>>
where
    B: HttpBody<Data = Bytes>,
{
    let status = response.status();
    if content == Content::Forbidden {
        // RFC 9110 §8.6. hyper itself sends the empty length of a 205.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::TRANSFER_ENCODING);
    } else if status != StatusCode::NOT_MODIFIED
        && !response.headers().contains_key(header::CONTENT_LENGTH)
    {
        // RFC 9110 §9.3.2: the head has the same length as in a response to GET. On HTTP/1 hyper
        // adds it.
        if in_flight.connection().protocol == Protocol::Http1 {
            return response.map(|body| ResponseBody::length_only(body, in_flight));
        }
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
    }
    response.map(|body| ResponseBody::suppressed(body, in_flight))
}
