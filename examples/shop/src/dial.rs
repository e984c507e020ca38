//! Connections to other services: real ones in `main`, simulated ones in a test.

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool};
use std::{future::Future, io, pin::Pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode};

/// A connection to another service.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to another service.
pub type Dial = Arc<dyn Fn() -> Dialing + Send + Sync>;
type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Connections of a pool, over any byte stream.
struct Dialed(Dial);

type Connecting<'a> = Pin<
    Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>,
>;

impl Connect for Dialed {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let (dialing, config) = ((self.0)(), config.clone());
        Box::pin(async move {
            // Only reads and writes of tokio-postgres make an error of its type.
            let stream = dialing.await.unwrap_or_else(|_| Box::new(tokio::io::duplex(1).0));
            let (client, connection) = config.connect_raw(stream, NoTls).await?;
            Ok((client, tokio::spawn(async move { drop(connection.await) })))
        })
    }
}

/// Returns a pool of connections to Postgres.
#[must_use]
pub fn pool(dial: Dial) -> Pool {
    let mut config = Config::new();
    config.user("shop").ssl_mode(SslMode::Disable);
    let manager = Manager::from_connect(config, Dialed(dial), ManagerConfig::default());
    Pool::builder(manager).max_size(4).build().expect("a pool without timeouts needs no runtime")
}
