//! A host of a simulated network without its type, for code that does not depend on the world.

use super::HostNetwork;
use lameduck::runtime::{ListenAddress, Listener, Reservation, ServerRole, Transport};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection of any simulated network.
pub(crate) type BoxStream = Box<dyn AnyStream>;

/// What is used of a connection.
pub(crate) trait AnyStream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// Resets the connection when it is dropped.
    fn reset_on_drop(&mut self);
}

impl<T: Transport> AnyStream for T {
    fn reset_on_drop(&mut self) {
        Transport::reset_on_drop(self);
    }
}

/// A future of a network operation.
pub(crate) type IoFuture<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A host of any simulated network.
pub(crate) trait AnyHost: fmt::Debug + Send + Sync {
    /// Connects to a port of a host.
    fn connect(&self, host: &'static str, port: u16) -> IoFuture<BoxStream>;

    /// Listens on a port of this host.
    fn listen(&self, port: u16) -> IoFuture<Box<dyn AnyListener>>;
}

/// A listener of any simulated network.
pub(crate) trait AnyListener: Send {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BoxStream>>;
}

impl<H: HostNetwork> AnyHost for H {
    fn connect(&self, host: &'static str, port: u16) -> IoFuture<BoxStream> {
        let network = self.clone();
        Box::pin(async move {
            let stream = HostNetwork::connect(&network, host, port).await?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen(&self, port: u16) -> IoFuture<Box<dyn AnyListener>> {
        let reserved = self.reserve(&ListenAddress::Port(port), ServerRole::Main, 1);
        Box::pin(async move {
            let listener = reserved?.listen().await?.pop().ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(Erased(listener)) as Box<dyn AnyListener>)
        })
    }
}

struct Erased<L>(L);

impl<L: Listener> AnyListener for Erased<L> {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BoxStream>> {
        self.0.poll_accept(cx).map_ok(|(stream, _)| Box::new(stream) as BoxStream)
    }
}
