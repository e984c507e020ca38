//! Tests of what the entry points do before the host runs.

use super::*;
use crate::{Limits, Setting, errors::tests::Circle};

#[test]
fn a_panic_while_the_host_is_built_is_a_failed_start() {
    // It ended the process with 101, without a word for the operator.
    type Service = tower::util::BoxCloneSyncService<
        http::Request<crate::Body>,
        http::Response<String>,
        io::Error,
    >;
    fn built<T>(_: impl FnOnce(Service) -> T) -> Result<T, BoxError> {
        panic!("no such file")
    }
    let builder = || Host::builder(Settings::default());
    let error = host_of(|| built(|service| builder().serve(service))).unwrap_err();
    assert_eq!(error.kind(), HostErrorKind::Build);
    assert_eq!(error.to_string(), "panicked while the host was built: no such file");
    assert_eq!(not_built(error).code(), 1);
}

/// The documents said that this panics. It is a failed start, whose report has the error.
#[test]
fn a_host_outside_of_a_runtime_does_not_start() {
    use futures_util::FutureExt as _;
    let host = Host::builder(Settings::default()).serve(axum::Router::new());
    let report = host.run().now_or_never().expect("nothing to wait for");
    let error = report.error.as_ref().expect("an error");
    assert_eq!((report.code(), error.kind()), (1, HostErrorKind::System));
    assert!(error.with_causes().starts_with("cannot install the signal handlers: "), "{error:?}");
}

/// An error of an app was its own cause. The start never ended, at 100 % CPU (P7).
#[test]
fn an_error_that_is_its_own_cause_ends_the_start() {
    let report = Report::failed_to_start(HostError::build(Box::new(Circle)), Duration::ZERO);
    let error = with_limit_named(report).error.expect("an error");
    assert_eq!(error.with_causes(), "circle");
}

/// An operator set the connection limit to the descriptor limit less 64, and the process held fewer
/// connections: the value is also a default, which makes room for the workers.
#[test]
fn a_connection_limit_that_was_set_is_kept() {
    let limit_of = |mut settings: Settings| {
        limit_connections(&mut settings, NonZeroUsize::MIN).unwrap();
        settings.limits.connections_max
    };
    let most = connections_max();
    let flag = |setting: &Setting| {
        Vec::from_iter((setting.flag == "connections-max").then(|| most.to_string()))
    };
    let by_flag = Settings::default().resolve(flag, |_| None).unwrap();
    let in_code = Settings::default().limits(Limits::default().connections_max(most));
    assert_eq!([by_flag, in_code].map(limit_of), [most; 2]);
    assert_eq!(limit_of(Settings::default()), connections_max_beside(1, 1));
}
