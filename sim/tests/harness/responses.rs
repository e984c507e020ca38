//! The service's responses are never the host's fault, whatever their status is.

use axum::{Json, Router, http::StatusCode, routing::get, routing::post};
use lameduck_sim::{Request, explore};

// A handler that responded 400, 408, 431 or 503 made the host's P5 fail ("clients got 0 complete
// responses"): by status and body they look like responses of the host. axum's own rejections are
// 400, so the first service with a body extractor raised a false alarm.
#[test]
fn a_response_of_the_service_is_never_taken_for_one_of_the_host() {
    let statuses = [400, 408, 431, 500, 503];
    let mut router = Router::new();
    for status in statuses {
        let respond = move || async move { StatusCode::from_u16(status).unwrap() };
        router = router.route(&format!("/{status}"), get(respond));
    }
    // The very body of a response of the host.
    let imitates = "request aborted: the service is shutting down and the drain has ended\n";
    let router = router
        .route("/imitates", get(move || async move { (StatusCode::SERVICE_UNAVAILABLE, imitates) }))
        .route("/orders", post(|_: Json<u64>| async {}));
    let mut trials = explore(move |world| world.host().serve(router.clone()))
        .get("/imitates")
        .expect(503)
        .request(
            Request::post("/orders", "tea").header("content-type", "application/json").expect(400),
        );
    for status in statuses {
        trials = trials.get(format!("/{status}")).expect(status);
    }
    trials.seeds(0..40).run().unwrap();
}
