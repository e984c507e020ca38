//! Validation of the host that a request is for. All readers of a request must see the same host.

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header::HOST, uri::Authority};
use std::net::Ipv6Addr;

/// Refuses a request whose host is missing, invalid or not unique (RFC 9112 §3.2, RFC 9113 §8.3.1).
/// In an absolute-form request the target takes precedence over the header field, which is replaced
/// (RFC 9112 §3.2.2).
///
/// # Errors
/// Returns the reason of the refusal.
pub(super) fn check<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    let version = request.version();
    let host = host_of(request.headers())?;
    if version == Version::HTTP_11 && host.is_none() {
        return Err("missing host header field");
    }
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    if authority.as_str().contains('@') {
        return Err("userinfo in the request target");
    }
    let is_same = host.is_none_or(|host| is_same(host, authority, request.uri()));
    if version >= Version::HTTP_2 {
        return if is_same { Ok(()) } else { Err("host header field and :authority differ") };
    }
    if request.method() != Method::CONNECT && !is_same {
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| "request target is not valid")?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// Returns the `host` field, if there is one. More than one is an error.
fn host_of(headers: &HeaderMap) -> Result<Option<&HeaderValue>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !is_valid(host.as_bytes()) => Err("host header field is not valid"),
        (host, None) => Ok(host),
        (_, Some(_)) => Err("more than one host header field"),
    }
}

/// Whether both name the same host and port. The scheme's default port may be omitted.
fn is_same(host: &HeaderValue, authority: &Authority, uri: &Uri) -> bool {
    let default_port: &[u8] = if uri.scheme_str() == Some("https") { b":443" } else { b":80" };
    let [host, authority] = [host.as_bytes(), authority.as_str().as_bytes()]
        .map(|name| name.strip_suffix(default_port).unwrap_or(name));
    host.eq_ignore_ascii_case(authority)
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2.2).
pub(crate) fn is_valid(host: &[u8]) -> bool {
    // One pass for the usual host, since each request has one.
    match host.iter().position(|byte| !NAME_BYTES[usize::from(*byte)]) {
        None => true,
        Some(0) if host[0] == b'[' => is_valid_literal(&host[1..]),
        Some(at) => is_valid_rest(&host[at..]),
    }
}

/// Whether the rest of a host, from the first byte that is not plain, is valid.
fn is_valid_rest(mut rest: &[u8]) -> bool {
    loop {
        rest = match rest {
            [] => return true,
            [b':', port @ ..] => return port.iter().all(u8::is_ascii_digit),
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [plain, rest @ ..] if NAME_BYTES[usize::from(*plain)] => rest,
            _ => return false,
        };
    }
}

/// The bytes of a host name that need no further check: unreserved and sub-delims (RFC 3986
/// §3.2.2).
const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        let marks = matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        );
        table[byte as usize] = byte.is_ascii_alphanumeric() || marks;
        byte += 1;
    }
    table
};

/// Whether this is an IPv6 address, its closing bracket and perhaps a port. `literal` begins after
/// the opening bracket.
fn is_valid_literal(literal: &[u8]) -> bool {
    let mut parts = literal.splitn(2, |byte| *byte == b']');
    let address = parts.next().and_then(|address| str::from_utf8(address).ok());
    let is_address = address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let is_port = match parts.next() {
        Some([b':', port @ ..]) => port.iter().all(u8::is_ascii_digit),
        Some(rest) => rest.is_empty(),
        None => false,
    };
    is_address && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        let valid: &[&[u8]] = &[
            b"",
            b"a",
            b"a.example:80",
            b"a.example:",
            b"127.0.0.1:8080",
            b"[::1]",
            b"[::1]:80",
            b"a_b",
            b"a%20b",
            b"xn--a,b",
        ];
        for host in valid {
            assert!(is_valid(host), "{}", host.escape_ascii());
        }
        let invalid: &[&[u8]] = &[
            b"a b",
            b"a/b",
            b"a@b",
            b"user@a.example",
            b"a:b",
            b"a:80:80",
            b"a:80@b",
            b"[::1",
            b"::1",
            b"[a]",
            b"[::1]a",
            b"a%2",
            b"a%zz",
            b"a\tb",
            b"a, b",
            b"http://a",
            b"a?b",
            b"a#b",
            b"\xe4",
            b"a\"b",
            b"a<b",
            b"[v1.a]",
        ];
        for host in invalid {
            assert!(!is_valid(host), "{}", host.escape_ascii());
        }
    }

    fn checked(
        version: Version,
        target: &str,
        hosts: &[&str],
    ) -> Result<Option<String>, &'static str> {
        let mut request =
            Request::get(target).version(version).body(()).map_err(|_| "no request")?;
        for host in hosts {
            request
                .headers_mut()
                .append(HOST, HeaderValue::from_str(host).map_err(|_| "no value")?);
        }
        check(&mut request)?;
        Ok(request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned))
    }

    #[test]
    fn http1_names_its_host_once() {
        let check = |target, hosts: &[&str]| checked(Version::HTTP_11, target, hosts);
        assert_eq!(check("/", &["a"]), Ok(Some("a".to_owned())));
        assert_eq!(check("/", &[""]), Ok(Some(String::new())));
        assert!(check("/", &[]).is_err());
        assert!(check("/", &["a", "a"]).is_err());
        assert!(check("/", &["a b"]).is_err());
        assert!(check("http://a/", &[]).is_err());
        assert!(check("http://u@a/", &["a"]).is_err());
        assert_eq!(
            check("http://a/", &["b"]),
            Ok(Some("a".to_owned())),
            "the target goes before the field"
        );
        assert_eq!(check("http://a:80/", &["A"]), Ok(Some("A".to_owned())));
        assert_eq!(checked(Version::HTTP_10, "/", &[]), Ok(None));
        assert!(checked(Version::HTTP_10, "/", &["a", "b"]).is_err());
        assert!(checked(Version::HTTP_10, "/", &["a/b"]).is_err());
    }

    #[test]
    fn http2_names_its_host_once() {
        let check = |target, hosts: &[&str]| checked(Version::HTTP_2, target, hosts);
        assert!(check("http://a/", &[]).is_ok());
        assert!(check("http://a/", &["a"]).is_ok());
        assert!(check("http://a/", &["A:80"]).is_ok());
        assert!(check("https://a:443/", &["a"]).is_ok());
        assert!(check("https://a:80/", &["a"]).is_err());
        assert!(check("http://a/", &["b"]).is_err());
        assert!(check("http://a/", &["a", "a"]).is_err());
        assert!(check("http://u@a/", &["a"]).is_err());
        assert!(check("/", &["a"]).is_ok());
    }
}
