//! A shop: orders are paid over HTTP and stored in Postgres, and messages come from a queue that
//! delivers each of them at least once.
//!
//! `main` connects it to real services, `tests/shutdown` to simulated ones. [`Bug`] plants one of
//! the usual bugs of a shutdown; `docs/cookbook.md` has the output of the simulation for each.

mod dial;
mod messages;
mod orders;

pub use dial::{Dial, Stream, pool};

use axum::{
    Router,
    routing::{get, post},
};
use bytes::Bytes;
use deadpool_postgres::Pool;
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, connect::Connect};
use lameduck::{BackgroundTask, Builder, Hook, Host, TaskContext, TowerService};
use std::{
    convert::Infallible,
    error::Error,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::timeout;

/// How long the shop waits for another service.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lines that are written to the database at the exit.
type Audit = Arc<Mutex<Vec<String>>>;

type BoxError = Box<dyn Error + Send + Sync>;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// None: the shop is sound.
    None,
    /// A task that nothing waits for sends the receipt.
    DetachedWork,
    /// The pool is closed at the stop request, while requests still need it.
    PoolClosedEarly,
    /// The pool is closed before the audit log is written to it.
    FlushAfterThePool,
    /// A message is acknowledged before it is stored.
    AcknowledgedFirst,
    /// A stream does not end with the drain.
    EndlessStream,
    /// Tracked work does not end when it is cancelled.
    IgnoredCancellation,
    /// Tracked work panics.
    PanickingWork,
}

/// The services that the shop depends on.
#[derive(Clone)]
pub struct Dependencies<C> {
    /// Connections to Postgres.
    pub db: Pool,
    /// The client of the payment service.
    pub payments: Client<C, Empty<Bytes>>,
    /// Connects to the queue.
    pub queue: Dial,
}

/// What the handlers share.
#[derive(Clone)]
struct Shop<C> {
    db: Pool,
    payments: Client<C, Empty<Bytes>>,
    audit: Audit,
    bug: Bug,
}

/// Builds the shop, in `main` and in tests.
pub fn shop<C>(host: Builder, with: Dependencies<C>, bug: Bug) -> Host<TowerService<Router>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let Dependencies { db, payments, queue } = with;
    let audit = Audit::default();
    let shop = Shop { db: db.clone(), payments, audit: Arc::clone(&audit), bug };
    let router = Router::new()
        .route("/orders", post(orders::create::<C>).get(orders::count::<C>))
        .route("/prices", get(orders::prices::<C>))
        .with_state(shop);
    let host = if bug == Bug::PoolClosedEarly {
        close_at_the_stop(host, db.clone(), audit)
    } else {
        close_after_the_drain(host, &db, audit, bug)
    };
    let consumer = BackgroundTask::new("messages", move |context: TaskContext| async move {
        messages::consume(context, queue, db, bug).await;
        Ok::<_, Infallible>(())
    });
    host.background_task(consumer).serve(router)
}

/// Adds the stop hooks. They run in reverse order: the resource that is needed last is added first.
fn close_after_the_drain(host: Builder, db: &Pool, audit: Audit, bug: Bug) -> Builder {
    let (closed, written) = (db.clone(), db.clone());
    let close = Hook::on_stop("pool", move || async move {
        closed.close();
        Ok::<_, Infallible>(())
    });
    let flush = Hook::on_stop("audit", move || flush(written, audit));
    if bug == Bug::FlushAfterThePool {
        return host.hook(flush).hook(close);
    }
    host.hook(close).hook(flush)
}

/// Writes the audit log and closes the pool as soon as a stop is requested: a bug.
fn close_at_the_stop(host: Builder, db: Pool, audit: Audit) -> Builder {
    host.background_task(BackgroundTask::new("closer", move |context: TaskContext| async move {
        context.stopping().await;
        let flushed = flush(db.clone(), audit).await;
        db.close();
        flushed
    }))
}

/// Inserts a row.
async fn store(db: &Pool, table: &str, value: &str) -> Result<(), BoxError> {
    let db = timeout(PATIENCE, db.get()).await??;
    let insert = format!("INSERT INTO {table} VALUES ($1)");
    timeout(PATIENCE, db.execute(&insert, &[&value])).await??;
    Ok(())
}

async fn flush(db: Pool, audit: Audit) -> io::Result<()> {
    let lines = std::mem::take(&mut *audit.lock().expect("no handler panics"));
    for line in lines {
        store(&db, "audit", &line).await.map_err(io::Error::other)?;
    }
    Ok(())
}
