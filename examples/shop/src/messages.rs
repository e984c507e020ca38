//! A consumer of a queue that delivers each message at least once: it sends `message N`, and again
//! on the next connection until it gets `ack N`.

use crate::{Bug, Dial, PATIENCE, Stream, store};
use deadpool_postgres::Pool;
use lameduck::TaskContext;
use std::{convert::Infallible, io, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    time::{sleep, timeout},
};

/// Stores each message and acknowledges it, until the drain begins.
pub(crate) async fn consume(context: TaskContext, dial: Dial, db: Pool, bug: Bug) {
    loop {
        tokio::select! {
            biased;
            () = context.draining() => return,
            Err(error) = consume_connection(&dial, &db, bug) => {
                tracing::warn!(%error, "the queue is lost; connecting again");
            }
        }
        tokio::select! {
            biased;
            () = context.draining() => return,
            () = sleep(Duration::from_millis(200)) => {}
        }
    }
}

/// Consumes messages until the connection fails.
async fn consume_connection(dial: &Dial, db: &Pool, bug: Bug) -> io::Result<Infallible> {
    let mut queue = BufStream::new(timeout(PATIENCE, dial()).await??);
    let mut line = String::new();
    loop {
        line.clear();
        if queue.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let number = line.trim().strip_prefix("message ").ok_or(io::ErrorKind::InvalidData)?;
        if bug == Bug::AcknowledgedFirst {
            acknowledge(&mut queue, number).await?;
            handle(db, number).await?;
        } else {
            handle(db, number).await?;
            acknowledge(&mut queue, number).await?;
        }
    }
}

/// Handles a message, which takes 150 ms, and stores it.
async fn handle(db: &Pool, number: &str) -> io::Result<()> {
    sleep(Duration::from_millis(150)).await;
    store(db, "messages", number).await.map_err(io::Error::other)
}

async fn acknowledge(queue: &mut BufStream<Box<dyn Stream>>, number: &str) -> io::Result<()> {
    queue.write_all(format!("ack {number}\n").as_bytes()).await?;
    queue.flush().await
}
