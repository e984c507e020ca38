use super::orders;

use axum::{Router, routing::get};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck_sim::{Request, explore};
use orders::host;

#[test]
fn orders_are_paid_in_a_shutdown_too() {
    explore(|world| {
        let bank = Router::new().route("/pay", get(|| async { "paid" }));
        let payments = world.downstream("payments", bank);
        let client = Client::builder(TokioExecutor::new()).build(payments.connector());
        host(world.host(), client)
    })
    .request(Request::post("/orders", "").json(&["tea"]).expect(201))
    .seeds(0..50)
    .run()
    .unwrap();
}
