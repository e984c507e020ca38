//! A queue that delivers each message at least once.

use lameduck_sim::ServerConnection;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};

/// The messages that were acknowledged.
#[derive(Clone, Default)]
pub struct Queue(Arc<Mutex<BTreeSet<String>>>);

impl Queue {
    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.0.lock().expect("no server panics").clone()
    }

    /// Serves one consumer. It gets a message every 100 ms, the same again until it acknowledges.
    pub async fn serve(self, connection: ServerConnection) {
        let mut stream = BufStream::new(connection);
        let mut line = String::new();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let message = format!("message {}\n", self.acknowledged().len());
            let sent = async {
                stream.write_all(message.as_bytes()).await?;
                stream.flush().await?;
                line.clear();
                stream.read_line(&mut line).await
            };
            if !sent.await.is_ok_and(|read| read > 0) {
                return;
            }
            if let Some(number) = line.trim().strip_prefix("ack ") {
                self.0.lock().expect("no server panics").insert(number.to_owned());
            }
        }
    }
}
