//! Services that the service under test depends on: databases, queues, other HTTP services.

mod connection;
mod schedule;
mod server;

pub use connection::Connection;
pub(crate) use schedule::{EFFECT, Schedule, Serving, is_slow};
pub use server::ServerConnection;
pub(crate) use server::{HOST, Server, serve_all, serve_http, serve_tcp};

use crate::network::AnyHost;
use hyper_util::rt::TokioIo;
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// A service that yours depends on, in the simulated network. The clones are handles to the same
/// one.
///
/// [`TestWorld::downstream`](super::TestWorld::downstream) creates one from an axum router, and
/// [`TestWorld::tcp_downstream`](super::TestWorld::tcp_downstream) from a function over a byte
/// stream. Your service reaches it by [`connect`](Self::connect), or by a hyper or tonic client
/// with [`connector`](Self::connector).
///
/// Faults are drawn from the seed, most of them at the stop: it is slow, refuses connections,
/// resets them, stops responding, or is gone from the network, for a while or for good.
#[derive(Clone)]
pub struct Downstream {
    name: Arc<str>,
    network: Arc<dyn AnyHost>,
    port: u16,
    schedule: Arc<Schedule>,
}

impl Downstream {
    pub(crate) fn new(
        name: &str,
        network: Arc<dyn AnyHost>,
        port: u16,
        schedule: Schedule,
    ) -> Self {
        Self { name: name.into(), network, port, schedule: Arc::new(schedule) }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a handle whose connections have no faults.
    #[must_use]
    pub fn reliable(&self) -> Self {
        Self { schedule: Arc::new(self.schedule.without_faults()), ..self.clone() }
    }

    /// Connects to it.
    ///
    /// # Errors
    /// `ConnectionRefused` while it refuses connections.
    ///
    /// # Cancel safety
    /// If dropped early, the attempt is abandoned.
    pub async fn connect(&self) -> io::Result<Connection> {
        connection::connect(&*self.network, self.port, Arc::clone(&self.schedule)).await
    }

    /// Returns a connector for the clients of hyper-util and tonic. It ignores the address of the
    /// URI and always connects to this downstream.
    ///
    /// ```
    /// # use axum::{Router, extract::State, http::StatusCode, routing::get};
    /// # use bytes::Bytes;
    /// # use http_body_util::Empty;
    /// use hyper_util::{client::legacy::{Client, connect::Connect}, rt::TokioExecutor};
    ///
    /// fn shop<C>(payments: Client<C, Empty<Bytes>>) -> Router
    /// where
    ///     C: Connect + Clone + Send + Sync + 'static,
    /// {
    ///     let pay = move |State(payments): State<Client<C, Empty<Bytes>>>| async move {
    ///         match payments.get("http://payments/pay".parse().expect("a URI")).await {
    ///             Ok(paid) => paid.status(),
    ///             Err(_) => StatusCode::BAD_GATEWAY,
    ///         }
    ///     };
    ///     Router::new().route("/orders", get(pay)).with_state(payments)
    /// }
    ///
    /// lameduck_sim::explore(|world| {
    ///     let bank = Router::new().route("/pay", get(|| async { "paid" }));
    ///     let payments = world.downstream("payments", bank);
    ///     let client = Client::builder(TokioExecutor::new()).build(payments.connector());
    ///     world.host().serve(shop(client))
    /// })
    /// .get("/orders").expect(200)
    /// .seeds(0..20)
    /// .run()
    /// .unwrap();
    /// ```
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector { downstream: self.clone() }
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Connects hyper-util's and tonic's clients to a [`Downstream`].
#[derive(Clone, Debug)]
pub struct Connector {
    downstream: Downstream,
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let downstream = self.downstream.clone();
        Box::pin(async move { Ok(TokioIo::new(downstream.connect().await?)) })
    }
}
