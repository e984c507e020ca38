//! Stops the service at every moment, with a payment service that may fail at every moment.

use axum::{Router, routing::post};
use downstream_http::{PATIENCE, host};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck_sim::{Failure, Passed, explore};
use std::{ops::Range, time::Duration};

fn explored(patience: Duration, seeds: Range<u64>) -> Result<Passed, Failure> {
    explore(move |world| {
        let ok = || post(|| async {});
        let bank = Router::new().route("/pay", ok()).route("/settle", ok());
        let payments = world.downstream("payments", bank);
        let client = Client::builder(TokioExecutor::new()).build(payments.connector());
        host(world.host(), client, patience)
    })
    .post("/orders", "tea")
    .expect(201)
    .seeds(seeds)
    .run()
}

#[test]
fn it_stops_cleanly_whatever_the_payment_service_does() {
    explored(PATIENCE, 0..40).unwrap();
}

#[test]
fn a_stop_hook_that_waits_without_a_limit_is_found() {
    let failure = explored(Duration::MAX, 0..200).expect_err("the hook waits for a dead service");
    println!("{failure}");
    assert_eq!(failure.broken.promise, "S3");
    assert!(failure.broken.why.starts_with("the hook settlement ended with GivenUp"));
}
