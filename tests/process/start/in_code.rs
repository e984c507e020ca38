//! P14: settings that come from code have the bounds and the meaning of those from variables.

use lameduck::{Builder, Host, Limits, Settings, runtime::ListenAddress};
use std::time::Duration;

#[test]
fn an_address_overrides_a_port_of_the_same_source_and_any_flag_any_variable() {
    let text = |flags: &[&str], variables: &[(&str, &str)]| {
        let flag = |setting: &lameduck::Setting| {
            let prefix = format!("--{}=", setting.flag);
            flags.iter().filter_map(|flag| flag.strip_prefix(&prefix)).map(str::to_owned).collect()
        };
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let settings = Settings::default().resolve(flag, variable).unwrap();
        settings
            .main_addresses_or_default()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(text(&[], &[]), "[::]:8080");
    assert_eq!(text(&["--port=1"], &[]), "[::]:1");
    assert_eq!(text(&["--port=1", "--addr=127.0.0.1:2"], &[]), "127.0.0.1:2");
    assert_eq!(text(&["--port=1"], &[("APP_ADDR", "127.0.0.1:2")]), "[::]:1");
    assert_eq!(
        text(&[], &[("APP_PORT", "1"), ("APP_ADDR", "127.0.0.1:2, unix:/x")]),
        "127.0.0.1:2 unix:/x"
    );
    assert_eq!(text(&[], &[("APP_PORT", "1"), ("APP_ADDR", "")]), "[::]:1");
    assert_eq!(
        text(&["--addr=127.0.0.1:1", "--addr=127.0.0.1:2"], &[("APP_ADDR", "127.0.0.1:3")]),
        "127.0.0.1:1 127.0.0.1:2"
    );
}

/// Returns the error of a host that must be refused.
#[track_caller]
pub(super) fn refusal(builder: Builder) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(builder.serve(axum::Router::new()).run());
    assert_eq!(report.code(), 2, "{report:?}");
    report.error.unwrap().with_causes().to_owned()
}

#[test]
fn bounds_of_a_setting_hold_for_variables_and_code() {
    // Code bypassed the bounds of the table. A host that could not accept or keep a connection
    // started and served no request. The bounds must hold for code, too.
    let limits = |set: fn(&mut Limits)| {
        let mut limits = Limits::default();
        set(&mut limits);
        refusal(Host::builder(Settings::default().limits(limits)))
    };
    for (said, words) in [
        (
            limits(|limits| limits.connections_max = 0),
            "limits.connections_max=0: must be at least 1",
        ),
        (
            limits(|limits| limits.header_bytes_max = 512),
            "limits.header_bytes_max=512: must be at least 8192",
        ),
        (limits(|limits| limits.headers_max = 0), "limits.headers_max=0: must be at least 1"),
        (
            limits(|limits| limits.http2_streams_max = 0),
            "limits.http2_streams_max=0: must be at least 1",
        ),
        (
            limits(|limits| limits.header_timeout = Duration::ZERO),
            "limits.header_timeout=0s: must be longer than 0s",
        ),
        (
            limits(|limits| limits.keep_alive = Duration::ZERO),
            "limits.keep_alive=0s: must be longer than 0s",
        ),
        (
            limits(|limits| limits.first_byte_timeout = Duration::ZERO),
            "limits.first_byte_timeout=0s: must be longer than 0s",
        ),
        (
            limits(|limits| limits.send_timeout = Duration::ZERO),
            "limits.send_timeout=0s: must be longer than 0s",
        ),
        (
            limits(|limits| limits.body_timeout = Duration::ZERO),
            "limits.body_timeout=0s: must be longer than 0s",
        ),
    ] {
        assert_eq!(said, words);
    }
    let said = refusal(Host::builder(Settings::default().app_version("a\nb")));
    assert!(said.starts_with("app_version=a\\nb: expected visible characters"), "{said}");
    // Settings that were read from the environment name the variable, too.
    let settings = Settings::default().with_env().unwrap();
    let none = Limits::default().headers_max(0);
    let said = refusal(Host::builder(settings.limits(none)));
    assert_eq!(said, "limits.headers_max=0: must be at least 1 (APP_HEADERS_MAX)");
    let mut settings = Settings::default();
    settings.backlog = 0;
    assert_eq!(refusal(Host::builder(settings.clone())), "backlog=0: must be at least 1");
    settings.backlog = 1;
    settings.tcp_keepalive = Some(Duration::from_millis(10));
    assert!(
        refusal(Host::builder(settings)).starts_with("tcp_keepalive=10ms: must be at least 1s")
    );
}

#[test]
fn an_internal_route_without_its_slash_is_refused() {
    // The route was mounted and never found, because no request has such a path.
    let builder = Host::builder(Settings::default())
        .internal_route("outage", |_| async { http::Response::new("") });
    assert_eq!(refusal(builder), "internal route \"outage\": a path begins with a slash");
}

#[test]
fn a_zero_that_means_none_in_a_variable_means_the_same_in_code() {
    // A deadline of zero from code was a deadline, and every request timed out. Zero must mean
    // none, as in a variable. `Settings::check` refused a keep-alive of zero, which the start
    // accepts.
    let mut settings = Settings::default();
    settings.tcp_keepalive = Some(Duration::ZERO);
    settings.check().unwrap();
    let builder = Host::builder(crate::support::settings().request_timeout(Some(Duration::ZERO)));
    let slow = axum::routing::get(|| async { crate::support::pause(50).await });
    let app = crate::support::App::start(builder.serve(axum::Router::new().route("/", slow)));
    assert_eq!(app.get("/").status, 200);
    assert!(app.status()["plan"]["request_timeout_ms"].is_null());
    assert_eq!(app.end().code(), 0);
    assert_eq!(
        format!("{:?}", Host::builder(settings).serve(axum::Router::new()))
            .matches("tcp_keepalive: None")
            .count(),
        1
    );
}

#[test]
fn a_chosen_address_is_kept() {
    // A hidden mark identified the default address. It missed an address that code had set, and the
    // next one replaced it. A chosen address must stay.
    let (first, second): (ListenAddress, ListenAddress) =
        ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let mut settings = Settings::default();
    settings.main_addresses.push(first.clone());
    assert_eq!(
        settings.main_addresses_or_default(),
        std::slice::from_ref(&first),
        "the default has gone"
    );
    let mut settings = Settings::default();
    settings.main_addresses = vec![first.clone()];
    let mut settings = settings.resolve(|_| Vec::new(), |_| None).unwrap();
    settings.main_addresses.push(second.clone());
    assert_eq!(settings.main_addresses, [first, second.clone()]);
    // An address of the operator has priority over one of the code.
    let by_variable = |name: &str| (name == "APP_PORT").then(|| "3".to_owned());
    let mut settings = settings.resolve(|_| Vec::new(), by_variable).unwrap();
    assert_eq!(settings.main_addresses, [ListenAddress::Port(3)]);
    settings.main_addresses.push(second.clone());
    assert_eq!(settings.main_addresses, [ListenAddress::Port(3), second]);
}
