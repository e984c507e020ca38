//! The app's metrics are on the same page as the host's, in both formats.

use crate::support::{App, builder, wire};
use axum::{Router, routing::get};
use lameduck::prometheus_client::{metrics::counter::Counter, registry::Registry};

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
