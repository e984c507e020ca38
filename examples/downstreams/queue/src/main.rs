//! The process, connected to a real Redis.

use downstream_queue::{Acknowledge, Dial, Stream, host};
use lameduck::{Host, Settings};
use std::sync::Arc;
use tokio::net::TcpStream;

fn main() {
    lameduck::run(|| {
        let dial: Dial = Arc::new(|| {
            Box::pin(async {
                Ok(Box::new(TcpStream::connect("localhost:6379").await?) as Box<dyn Stream>)
            })
        });
        Ok(host(Host::builder(Settings::from_env()?), dial, Acknowledge::Last))
    })
}
