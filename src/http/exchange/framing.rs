//! The length of a response: which content its status allows, and whether its head and its body
//! agree (RFC 9110 §8.6, RFC 9112 §6).

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body as HttpBody;
use std::fmt;

/// The content that a response may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Allowed,
    /// No content, but the head may have its length: a response to HEAD, and 304.
    Described,
    /// No content and no length: 1xx, 204, 205, and 2xx to CONNECT.
    Forbidden,
}

impl Content {
    pub(super) fn of(method: &Method, status: StatusCode) -> Self {
        match status {
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => Self::Forbidden,
            status if status.is_informational() => Self::Forbidden,
            status if status.is_success() && *method == Method::CONNECT => Self::Forbidden,
            StatusCode::NOT_MODIFIED => Self::Described,
            _ if *method == Method::HEAD => Self::Described,
            _ => Self::Allowed,
        }
    }
}

/// A contradiction in the length of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LengthError {
    /// The value is not a number.
    Invalid(String),
    Several(u64, u64),
    /// A message must not have both fields (RFC 9112 §6.2).
    WithTransferEncoding(u64),
    /// The body is known to be shorter or longer than its `content-length`.
    Mismatch {
        says: u64,
        least: u64,
        most: Option<u64>,
    },
}

/// Returns the `content-length` of a head. Reduces repeated equal values to one field with one
/// value.
pub(super) fn declared_length(headers: &mut HeaderMap) -> Result<Option<u64>, LengthError> {
    let mut said = None;
    let mut values = 0;
    for field in headers.get_all(header::CONTENT_LENGTH) {
        for value in field.as_bytes().split(|byte| *byte == b',') {
            values += 1;
            let Some(length) = parse(value) else {
                return Err(LengthError::Invalid(
                    String::from_utf8_lossy(field.as_bytes()).into_owned(),
                ));
            };
            match said {
                Some(said) if said != length => return Err(LengthError::Several(said, length)),
                Some(_) | None => said = Some(length),
            }
        }
    }
    if let Some(length) = said {
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(LengthError::WithTransferEncoding(length));
        }
        if values > 1 {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
    }
    Ok(said)
}

/// Returns an error if the body cannot have the length that its head `says`.
pub(super) fn compare_length<B: HttpBody>(says: u64, body: &B) -> Result<(), LengthError> {
    let hint = body.size_hint();
    let (least, most) =
        if body.is_end_stream() { (0, Some(0)) } else { (hint.lower(), hint.upper()) };
    if least <= says && most.is_none_or(|most| most >= says) {
        return Ok(());
    }
    Err(LengthError::Mismatch { says, least, most })
}

/// Returns a number as the value of a field, in one allocation; its `From` needs two.
pub(super) fn number(number: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or_else(|_| number.into())
}

/// Parses a value of digits only. The parser of `u64` would accept a sign.
fn parse(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

impl fmt::Display for LengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(value) => write!(f, "content-length {value:?} is not a length"),
            Self::Several(one, other) => {
                write!(f, "several values of content-length: {one} and {other}")
            }
            Self::WithTransferEncoding(says) => {
                write!(f, "content-length {says} together with transfer-encoding")
            }
            Self::Mismatch { says, least, most } => match most {
                Some(most) if most < says => {
                    write!(f, "content-length is {says}, and the body has at most {most} bytes")
                }
                Some(_) | None => {
                    write!(f, "content-length is {says}, and the body has at least {least} bytes")
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(values: &[&'static str]) -> Result<Option<u64>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(value));
        }
        let said = declared_length(&mut headers).map_err(|error| error.to_string());
        assert!(said.is_err() || headers.get_all(header::CONTENT_LENGTH).iter().count() <= 1);
        said
    }

    #[test]
    fn repeated_equal_lengths_are_one_length() {
        for (values, length) in [
            (&[][..], None),
            (&["5"], Some(5)),
            (&["5", "5"], Some(5)),
            (&["5, 5"], Some(5)),
            (&["005"], Some(5)),
        ] {
            assert_eq!(said(values), Ok(length));
        }
        for values in [
            &["+5"][..],
            &["-1"],
            &[""],
            &["abc"],
            &["5,"],
            &["5", "x"],
            &["99999999999999999999"],
            &["5 5"],
        ] {
            assert!(said(values).unwrap_err().ends_with("is not a length"), "{values:?}");
        }
        assert_eq!(said(&["5", "6"]), Err("several values of content-length: 5 and 6".to_owned()));
        assert_eq!(said(&["5, 6"]), Err("several values of content-length: 5 and 6".to_owned()));
    }

    #[test]
    fn a_length_that_the_host_writes_is_read_back() {
        for length in [0, 9, 10, 65_536, u64::MAX] {
            assert_eq!(parse(number(length).as_bytes()), Some(length));
        }
    }

    #[test]
    fn content_is_what_the_method_and_the_status_allow() {
        let of = |method: &Method, status: u16| {
            Content::of(method, StatusCode::from_u16(status).expect("a status"))
        };
        for status in [100, 101, 103, 204, 205] {
            assert_eq!(of(&Method::GET, status), Content::Forbidden, "{status}");
            assert_eq!(of(&Method::HEAD, status), Content::Forbidden, "{status}");
        }
        assert_eq!(of(&Method::GET, 304), Content::Described);
        assert_eq!([200, 404].map(|status| of(&Method::HEAD, status)), [Content::Described; 2]);
        assert_eq!(
            [200, 404].map(|status| of(&Method::CONNECT, status)),
            [Content::Forbidden, Content::Allowed]
        );
        assert_eq!(
            [200, 206, 404, 599].map(|status| of(&Method::GET, status)),
            [Content::Allowed; 4]
        );
    }
}
