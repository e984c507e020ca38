//! The process, connected to a real payment service.

use downstream_http::{PATIENCE, host};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck::{Host, Settings};

fn main() {
    lameduck::run(|| {
        let payments = Client::builder(TokioExecutor::new()).build_http();
        Ok(host(Host::builder(Settings::from_env()?), payments, PATIENCE))
    })
}
