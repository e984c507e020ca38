use super::orders;

use axum::{body::Body, http::Request};
use lameduck::{TestHost, lifecycle::Phase};
use orders::{Store, router};
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
async fn an_order_is_acknowledged_in_the_lame_duck_delay() {
    let host = TestHost::new();
    host.enter(Phase::LameDuck);
    let mut request = Request::post("/orders").body(Body::from("tea")).unwrap();
    request.extensions_mut().insert(host.context());
    let response = router(Store::default()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 202);
}
