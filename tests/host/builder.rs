//! Everything that is set on a builder reaches its host.

use crate::support::service_fn;
use lameduck::{
    BackgroundTask, Body, Hook, Host, Limits, ReadinessCheck, Settings, lifecycle::Plan,
    runtime::ListenAddress,
};
use std::{convert::Infallible, time::Duration};

fn ok() -> impl Future<Output = Result<(), std::io::Error>> + Send {
    std::future::ready(Ok(()))
}

fn service() -> impl lameduck::HttpService {
    service_fn(|_: http::Request<Body>| async {
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    })
}

#[test]
fn settings_of_a_builder_reach_its_host() {
    let mut settings = Settings::default();
    settings.app_version = "0.0.1".to_owned();
    let early = format!("{:?}", Host::builder(settings.clone()));
    assert!(early.contains("0.0.1"), "{early}");
    let builder = Host::builder(
        settings
            .main_address(ListenAddress::Port(4_321))
            .internal_address(ListenAddress::Port(4_322))
            .app_version("9.8.7")
            .request_timeout(Some(Duration::from_millis(1_234)))
            .plan(Plan::new().lame_duck(Duration::from_millis(1_777)))
            .grace_period(Duration::from_secs(98))
            .limits(Limits::default().headers_max(55)),
    )
    .hook(Hook::on_stop("the-hook", ok))
    .background_task(BackgroundTask::new("the-task", |_| ok()))
    .readiness_check(ReadinessCheck::new("the-check", ok))
    .internal_route("/the-route", |_| async { http::Response::new("here") });
    let wanted = [
        "4321",
        "4322",
        "9.8.7",
        "1.234s",
        "1.777s",
        "98s",
        "headers_max: 55",
        "the-hook",
        "the-task",
        "the-check",
        "/the-route",
    ];
    let told = format!("{builder:?}");
    wanted.iter().for_each(|what| assert!(told.contains(what), "no {what} in {told}"));
    let told = format!("{:?}", builder.serve_hyper(service()));
    wanted.iter().for_each(|what| assert!(told.contains(what), "no {what} in {told}"));
}

#[test]
fn all_shutdown_handles_of_a_host_share_one_state() {
    let builder = Host::builder(Settings::default());
    let first = builder.shutdown_handle();
    assert!(format!("{first:?}").contains("is_cancelled: false"), "{first:?}");
    first.stop();
    assert!(format!("{:?}", builder.shutdown_handle()).contains("is_cancelled: true"));
    assert!(
        format!("{:?}", builder.serve_hyper(service()).shutdown_handle())
            .contains("is_cancelled: true")
    );
}

#[test]
fn a_callback_for_the_addresses_keeps_the_settings() {
    let builder = Host::builder(Settings::default().app_version("9.8.7")).on_bound(|_| {});
    let told = format!("{builder:?}");
    assert!(told.contains("9.8.7"), "{told}");
}
