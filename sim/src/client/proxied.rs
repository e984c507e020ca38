//! Connections that begin with a PROXY header, as those of a load balancer do.

use super::{ClientId, Connect};
use std::{io, time::Duration};
use tokio::io::AsyncWriteExt;

/// A route whose connections begin with these bytes. `header begins` is recorded when the
/// connection is made, and `header sent` when all of it was passed to the network.
#[derive(Clone, Debug)]
pub struct ProxiedRoute<C> {
    route: C,
    client_id: ClientId,
    pieces: Vec<Vec<u8>>,
    pause: Duration,
}

impl<C> ProxiedRoute<C> {
    /// Adds a header in pieces, with pauses between them, to the route of a client. Without pieces
    /// nothing is added.
    pub const fn new(route: C, client_id: ClientId, pieces: Vec<Vec<u8>>, pause: Duration) -> Self {
        Self { route, client_id, pieces, pause }
    }
}

impl<C: Connect> Connect for ProxiedRoute<C> {
    type Io = C::Io;

    async fn connect(&self) -> io::Result<Self::Io> {
        let mut io = self.route.connect().await?;
        if self.pieces.is_empty() {
            return Ok(io);
        }
        self.client_id.tell("header begins", &[]);
        for (n, piece) in self.pieces.iter().enumerate() {
            if n > 0 {
                super::pause(self.pause).await;
            }
            // The next step shows that the connection has ended.
            if io.write_all(piece).await.is_err() {
                return Ok(io);
            }
        }
        self.client_id.tell("header sent", &[]);
        Ok(io)
    }

    fn reset(io: Self::Io) {
        C::reset(io);
    }

    fn is_broken(io: &Self::Io) -> bool {
        C::is_broken(io)
    }
}
