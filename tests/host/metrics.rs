//! The app's metrics are on the same page as the host's, in both formats.

use crate::{
    early_stop::{OutOfThreads, Terminated},
    support::{App, builder, wire},
};
use axum::{Router, routing::get};
use lameduck::{
    Hook, HostErrorKind,
    os::{CurrentRuntime, OsNetwork, TokioClock},
    prometheus_client::{
        collector::Collector, encoding::DescriptorEncoder, metrics::counter::Counter,
        registry::Registry,
    },
    runtime::{Runtime, Seed},
};
use std::{fmt, io, sync::Arc};

#[test]
fn the_apps_metrics_are_on_the_same_page_in_both_formats() {
    let orders: Counter = Counter::default();
    let mut registry = Registry::with_prefix("shop");
    registry.register("orders", "Orders that were stored", orders.clone());
    let router = Router::new().route("/", get(|| async { "hello" }));
    let app = App::start(builder().metrics(registry).serve(router));
    orders.inc_by(3);
    let classic = app.probe("/metrics").body();
    assert!(
        classic.contains("# TYPE shop_orders_total counter\nshop_orders_total 3\n"),
        "{classic}"
    );
    assert!(classic.contains("lameduck_ready 1\n"), "{classic}");
    let head = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let open = format!("{head}accept: application/openmetrics-text; version=1.0.0\r\n\r\n");
    let open = wire::request(app.internal, &open).body();
    assert!(open.contains("shop_orders_total 3\n") && open.ends_with("# EOF\n"), "{open}");
    assert_eq!(open.matches("# EOF").count(), 1, "{open}");
    assert_eq!(app.end().code(), 0);
}

/// Has no metrics, and panics when it is dropped.
#[derive(Debug)]
struct PanicsOnDrop;

impl Collector for PanicsOnDrop {
    fn encode(&self, _: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        Ok(())
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("a destructor, on purpose");
    }
}

// The system had no thread for the internal server, and a collector of the app panicked when the
// host dropped it. The panic took the report with its error (P13).
#[test]
fn what_a_collector_holds_does_not_replace_the_error_of_a_failed_start() {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(PanicsOnDrop));
    let hook = Hook::on_start("hook", || async { Ok::<(), io::Error>(()) });
    let host = builder().metrics(registry).hook(hook).serve(Router::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let spawner = OutOfThreads(CurrentRuntime::new(tokio::runtime::Handle::current()));
        let (clock, network) = (Arc::new(TokioClock::new()), OsNetwork::default());
        let signals = Terminated(false);
        host.run_in(Runtime { clock, network, signals, spawner, seed: Seed(7) }).await
    });
    let error = report.error.as_ref().expect("an error");
    assert_eq!((report.code(), error.kind()), (1, HostErrorKind::System), "{error:#}");
}
