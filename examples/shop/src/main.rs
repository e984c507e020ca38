//! The process, connected to real services.

use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck::{Host, Settings};
use shop::{Bug, Dependencies, Dial, Stream, pool, shop};
use std::sync::Arc;
use tokio::net::TcpStream;

fn main() {
    lameduck::run(|| {
        let with = Dependencies {
            db: pool(tcp("localhost:5432")),
            payments: Client::builder(TokioExecutor::new()).build_http(),
            queue: tcp("localhost:7000"),
        };
        Ok(shop(Host::builder(Settings::from_env()?), with, Bug::None))
    })
}

/// Returns a dial to a TCP address. The payment service is found by its name, `payments`.
fn tcp(address: &'static str) -> Dial {
    Arc::new(move || {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn Stream>) })
    })
}
