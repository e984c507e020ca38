//! What a tower service says of itself before it is called is heard.

mod support;

use axum::{Router, routing::get};
use std::{
    future::Ready,
    task::{Context, Poll},
};
use support::{App, Client, builder};
use tower::{Service, limit::ConcurrencyLimit};

#[test]
fn a_tower_service_that_is_not_ready_is_waited_for() {
    // One at a time, whatever the connection: the second request finds the service busy, and must be woken when it is free.
    let router = Router::new().route("/", get(|| async { support::pause(200).await }));
    let app = App::start(builder().tower(ConcurrencyLimit::new(router, 1)));
    let mut clients = [(); 3].map(|()| Client::connect(app.main));
    for client in &mut clients {
        client.send_get("/");
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    let report = app.end();
    assert_eq!((report.code(), report.requests.finished), (0, 3), "{report:?}");
}

#[test]
fn a_tower_service_that_cannot_become_ready_is_a_500() {
    #[derive(Clone)]
    struct Broken;
    impl Service<http::Request<lameduck::Body>> for Broken {
        type Response = http::Response<String>;
        type Error = &'static str;
        type Future = Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err("broken for good"))
        }
        fn call(&mut self, _: http::Request<lameduck::Body>) -> Self::Future {
            panic!("called though it was not ready");
        }
    }
    let app = App::start(builder().tower(Broken));
    let mut client = Client::connect(app.main);
    for _ in 0..2 {
        assert_eq!(client.get("/").status, 500);
    }
    let report = app.end();
    assert_eq!((report.requests.finished, report.requests.panicked), (2, 0), "{report:?}");
}
