//! The host names that the internal server responds to.
//!
//! A web page can make its own name resolve to a private address (DNS rebinding). It could then
//! read `/status` through the browser of a user inside the network. The browser sends the page's
//! name as `Host`, so names that are not configured are refused. IP addresses and `localhost`
//! cannot be rebound.

use http::{Request, header, uri::Authority};
use std::net::IpAddr;

/// Names that requests may address, in addition to IP addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedHosts {
    names: Vec<String>,
    /// The flag and variable of the setting, if the program has them. The refusal names them.
    knobs: String,
}

impl AllowedHosts {
    pub(crate) fn new(names: &[String], knobs: String) -> Self {
        Self { names: names.iter().map(|name| normal(name)).collect(), knobs }
    }

    /// The text of the refusal of this host.
    pub(crate) fn reason(&self, host: &str) -> String {
        format!(
            "host {host:?} is not allowed here: use an IP address, localhost, or a name in \
             internal_hosts{}\n",
            self.knobs
        )
    }

    /// Returns the first host of the request that is not allowed. The target and every `Host` field
    /// must be allowed, since a proxy in front may have used either. A request without any host
    /// does not come from a browser (HTTP/1.0).
    pub(crate) fn refused<B>(&self, request: &Request<B>) -> Option<String> {
        let target = request.uri().authority().map(Authority::as_str);
        let fields = request
            .headers()
            .get_all(header::HOST)
            .iter()
            .map(|value| value.to_str().unwrap_or("\u{fffd}"));
        target.into_iter().chain(fields).find(|host| !self.allows(host)).map(str::to_owned)
    }

    fn allows(&self, host: &str) -> bool {
        if host.is_empty() {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = normal(authority.host());
        let address =
            name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || self.names.iter().any(|allowed| matches(allowed, &name))
    }
}

/// Normalizes a name: lower case, without the final dot of a fully qualified name.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// `*` allows every name; `.example` allows every name below it.
fn matches(allowed: &str, name: &str) -> bool {
    if allowed.starts_with('.') {
        return name.len() > allowed.len() && name.ends_with(allowed);
    }
    allowed == "*" || allowed == name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(names: &[&str], uri: &str, hosts: &[&str]) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        AllowedHosts::new(&names, String::new()).refused(&request.body(()).unwrap())
    }

    #[test]
    fn addresses_and_localhost_are_allowed_and_any_other_name_is_not() {
        for host in [
            "10.1.2.3:8081",
            "10.1.2.3",
            "[::1]:8081",
            "[fd00::1]",
            "localhost",
            "LocalHost:8081",
            "localhost.",
            "",
        ] {
            assert_eq!(refused(&[], "/status", &[host]), None, "{host}");
        }
        assert_eq!(refused(&[], "/status", &[]), None, "HTTP/1.0");
        for host in [
            "evil.example:8081",
            "app",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "a@127.0.0.1",
            "evil.example#127.0.0.1",
            "127.0.0.1, evil.example",
            ":8081",
            "2130706433",
        ] {
            assert_eq!(refused(&[], "/status", &[host]).as_deref(), Some(host));
        }
    }

    #[test]
    fn configured_names_are_allowed_whole_or_by_their_end() {
        let names = &["app", "App.Default.svc", ".pods.example"];
        for host in ["app", "APP:8081", "app.default.svc.", "a.pods.example:1", "a.b.pods.example"]
        {
            assert_eq!(refused(names, "/", &[host]), None, "{host}");
        }
        for host in ["app2", "pods.example", ".pods.example", "evilpods.example", "app.default"] {
            assert_eq!(refused(names, "/", &[host]).as_deref(), Some(host));
        }
        assert_eq!(refused(&["*"], "/", &["evil.example"]), None, "switched off");
    }

    #[test]
    fn the_target_and_every_field_must_be_allowed() {
        assert_eq!(
            refused(&[], "http://evil.example/", &[]).as_deref(),
            Some("evil.example"),
            ":authority"
        );
        assert_eq!(
            refused(&[], "http://evil.example/", &["127.0.0.1"]).as_deref(),
            Some("evil.example")
        );
        assert_eq!(
            refused(&[], "http://127.0.0.1:8081/", &["evil.example"]).as_deref(),
            Some("evil.example")
        );
        assert_eq!(
            refused(&[], "/", &["127.0.0.1", "evil.example"]).as_deref(),
            Some("evil.example")
        );
        assert_eq!(refused(&[], "http://[::1]:8081/", &["[::1]:8081"]), None);
    }
}
