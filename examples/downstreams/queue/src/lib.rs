//! Jobs in a Redis list. A consumer moves each to a second list, handles it, and then removes it
//! there, so each job is handled at least once.

#![forbid(unsafe_code)]

use axum::{Router, extract::State, http::StatusCode, routing::post};
use lameduck::{
    BackgroundTask, Builder, Host, HttpService, TaskContext, lifecycle::Phase, sometimes,
};
use redis::{
    AsyncConnectionConfig, RedisConnectionInfo, RedisResult, aio::MultiplexedConnection, cmd,
};
use std::{convert::Infallible, io, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};

/// How long the service waits for a connection to Redis.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection to Redis.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to Redis.
pub type Dial = Arc<dyn Fn() -> Dialing + Send + Sync>;
type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// When a job is removed from the list of jobs in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// After it was handled.
    Last,
    /// Before it is handled: a mistake, since a stop in between loses it.
    First,
}

/// Builds the host of the service, in `main` and in tests.
pub fn host(
    builder: Builder,
    dial: Dial,
    acknowledge: Acknowledge,
) -> Host<impl HttpService + use<>> {
    let router = Router::new().route("/jobs", post(add)).with_state(Arc::clone(&dial));
    let consumer = BackgroundTask::new("jobs", move |context: TaskContext| async move {
        consume(context, dial, acknowledge).await;
        Ok::<_, Infallible>(())
    });
    builder.background_task(consumer).serve(router)
}

async fn add(State(dial): State<Dial>, job: String) -> Result<StatusCode, (StatusCode, String)> {
    let added = async {
        let mut redis = connect(&dial).await?;
        cmd("RPUSH").arg("jobs").arg(job).exec_async(&mut redis).await
    };
    match added.await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

async fn connect(dial: &Dial) -> RedisResult<MultiplexedConnection> {
    let (info, config) = (RedisConnectionInfo::default(), AsyncConnectionConfig::new());
    let connecting = async {
        let stream = dial().await?;
        let (redis, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
        // It ends with the last handle to the connection.
        tokio::spawn(driver);
        Ok(redis)
    };
    timeout(PATIENCE, connecting).await.map_err(io::Error::from)?
}

/// Handles jobs until the drain begins. A job that is not finished then is handled again later.
async fn consume(context: TaskContext, dial: Dial, acknowledge: Acknowledge) {
    loop {
        tokio::select! {
            biased;
            () = context.draining() => return,
            Err(error) = consume_connection(&context, &dial, acknowledge) => {
                tracing::warn!(%error, "the connection to Redis is lost; connecting again");
            }
        }
        tokio::select! {
            biased;
            () = context.draining() => return,
            () = sleep(Duration::from_millis(200)) => {}
        }
    }
}

/// Handles jobs until the connection fails.
async fn consume_connection(
    context: &TaskContext,
    dial: &Dial,
    acknowledge: Acknowledge,
) -> RedisResult<Infallible> {
    let mut redis = connect(dial).await?;
    // Jobs that were begun and not finished. With several consumers, each needs its own list.
    let again = cmd("LMOVE").arg(&["working", "jobs", "RIGHT", "LEFT"]).clone();
    while again.query_async::<Option<String>>(&mut redis).await?.is_some() {
        sometimes!("a job is handled again");
    }
    let next = cmd("BLMOVE").arg(&["jobs", "working", "LEFT", "RIGHT", "0.2"]).clone();
    loop {
        let Some(job) = next.query_async::<Option<String>>(&mut redis).await? else { continue };
        sometimes!(context.phase() == Phase::LameDuck, "a job begins in the lame duck delay");
        let done = cmd("LREM").arg(&["working", "1", &job]).clone();
        if acknowledge == Acknowledge::First {
            done.exec_async(&mut redis).await?;
        }
        // The work: it takes 150 ms, and may be done twice.
        sleep(Duration::from_millis(150)).await;
        cmd("SADD").arg(&["receipts", &job]).exec_async(&mut redis).await?;
        if acknowledge == Acknowledge::Last {
            done.exec_async(&mut redis).await?;
        }
    }
}
