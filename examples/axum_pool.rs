//! An axum app with a pool: opened before the first request, closed after the last handler.
//!
//! The pool is simulated: a semaphore stands for its connections and a sleep for its queries. Its
//! interface is that of sqlx, deadpool and the like. The handle is created immediately, is cheap to
//! clone, connects later and can be closed. So the router can own a handle before the start hook
//! opens the pool.
//!
//! ```text
//!  start hook: open ──▶ serving, readiness check: ping ──▶ drain: handlers finish their queries
//!                                                               │
//!                                                               └──▶ stop hook: close
//! ```
//!
//! ```text
//! $ cargo run --example axum_pool
//! $ curl localhost:8080/query/3000 & sleep 1      # a query of three seconds
//!                                                 # now press Ctrl-C, twice to skip the lame duck
//! ```
//!
//! The response arrives, and only then the log reports `pool closed`, with nothing in use. To see
//! the check at work:
//!
//! ```text
//! $ curl -X POST localhost:8081/outage            # simulates an outage; repeat it to end it
//! $ curl -i localhost:8081/readiness              # 503, and why, within a second
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{
    Router,
    extract::{Path, State},
    http::{Method, Response, StatusCode},
    routing::get,
};
use lameduck::{
    Hook, Host, ReadinessCheck, RunOptions, Settings,
    cli::logging::{self, LogFormat},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let pool = Pool::default();
        let (opened, checked, broken) = (pool.clone(), pool.clone(), pool.clone());
        let router = Router::new().route("/query/{ms}", get(query)).with_state(pool);
        Ok(Host::builder(Settings::from_env()?)
            .hook(Hook::pair(
                "database",
                || async move { opened.open().await.map(|()| opened) },
                |opened| async move { opened.close().await },
            ))
            .readiness_check(
                ReadinessCheck::new("database", move || {
                    let pool = checked.clone();
                    async move { pool.ping().await }
                })
                .interval(Duration::from_millis(500)),
            )
            // The internal server takes additional routes; here, a switch for the simulated
            // outage.
            .internal_route("/outage", move |request| {
                // A GET changes nothing: a browser may send one for any web page.
                let is_down = if request.method() == Method::POST {
                    broken.toggle_outage()
                } else {
                    broken.is_down()
                };
                async move {
                    Response::new(if is_down {
                        "the database is down\n"
                    } else {
                        "the database is up\n"
                    })
                }
            })
            .serve(router))
    })
}

async fn query(
    State(pool): State<Pool>,
    Path(ms): Path<u64>,
) -> Result<String, (StatusCode, String)> {
    let answer = async { pool.acquire().await?.query(Duration::from_millis(ms)).await }.await;
    answer.map_err(|error| (StatusCode::BAD_GATEWAY, format!("{error}\n")))
}

/// A simulated pool. Clones are the same pool.
#[derive(Clone, Debug, Default)]
struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Semaphore,
    queries: AtomicU64,
    is_down: AtomicBool,
}

impl Default for Inner {
    fn default() -> Self {
        // No connection before the pool is opened.
        Self {
            connections: Semaphore::new(0),
            queries: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
        }
    }
}

/// A connection, which returns to the pool when it is dropped.
struct Connection<'pool> {
    pool: &'pool Inner,
    _permit: SemaphorePermit<'pool>,
}

impl Pool {
    const CONNECTIONS: usize = 4;

    async fn open(&self) -> io::Result<()> {
        // A real pool would connect here. An error would end the start with exit code 1.
        sleep(Duration::from_millis(50)).await;
        self.0.connections.add_permits(Self::CONNECTIONS);
        tracing::info!(connections = Self::CONNECTIONS, "pool opened");
        Ok(())
    }

    async fn acquire(&self) -> io::Result<Connection<'_>> {
        let permit = self.0.connections.acquire().await;
        let permit = permit
            .map_err(|_| io::Error::new(io::ErrorKind::NotConnected, "the pool is closed"))?;
        Ok(Connection { pool: &self.0, _permit: permit })
    }

    /// Checks the database, not the pool: a busy pool must not make every instance unready at once.
    async fn ping(&self) -> io::Result<()> {
        sleep(Duration::from_millis(1)).await;
        if self.0.is_down.load(Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the database does not answer",
            ));
        }
        Ok(())
    }

    /// Refuses new work and logs the connections in use. A connection in use here would mean a
    /// handler that outlived the cancel wait.
    async fn close(&self) -> io::Result<()> {
        let in_use = Self::CONNECTIONS - self.0.connections.available_permits();
        self.0.connections.close();
        // A real pool would close its database connections here.
        sleep(Duration::from_millis(50)).await;
        tracing::info!(in_use, queries = self.0.queries.load(Relaxed), "pool closed");
        Ok(())
    }

    fn is_down(&self) -> bool {
        self.0.is_down.load(Relaxed)
    }

    fn toggle_outage(&self) -> bool {
        !self.0.is_down.fetch_xor(true, Relaxed)
    }
}

impl Connection<'_> {
    async fn query(&self, takes: Duration) -> io::Result<String> {
        sleep(takes).await;
        let queries = self.pool.queries.fetch_add(1, Relaxed) + 1;
        tracing::info!(queries, "query done");
        Ok(format!("query {queries} took {takes:?}\n"))
    }
}
