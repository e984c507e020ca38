//! Orders that are stored in Postgres, by a pool of connections.

#![forbid(unsafe_code)]

use axum::{Router, extract::State, http::StatusCode, routing::post};
use deadpool_postgres::Pool;
use lameduck::{BackgroundTask, Builder, Hook, Host, HttpService, TaskContext};
use std::{convert::Infallible, error::Error, time::Duration};
use tokio::time::timeout;

/// How long a handler waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// When the pool is closed.
#[derive(Clone, Copy, Debug)]
pub enum Close {
    /// After the last request.
    AfterTheDrain,
    /// When the stop is requested: a mistake, since the service still gets requests.
    AtTheStop,
}

/// Builds the host of the service, in `main` and in tests.
pub fn host(builder: Builder, db: Pool, close: Close) -> Host<impl HttpService + use<>> {
    let router = Router::new().route("/orders", post(order)).with_state(db.clone());
    let builder = match close {
        Close::AfterTheDrain => builder.hook(Hook::on_stop("pool", move || async move {
            db.close();
            Ok::<_, Infallible>(())
        })),
        Close::AtTheStop => {
            let closer = BackgroundTask::new("closer", move |context: TaskContext| async move {
                context.stopping().await;
                db.close();
                Ok::<_, Infallible>(())
            });
            builder.background_task(closer)
        }
    };
    builder.serve(router)
}

async fn order(State(db): State<Pool>, tea: String) -> Result<StatusCode, (StatusCode, String)> {
    match store(&db, &tea).await {
        Ok(()) => Ok(StatusCode::CREATED),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn store(db: &Pool, tea: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let db = timeout(PATIENCE, db.get()).await??;
    timeout(PATIENCE, db.execute("INSERT INTO orders VALUES ($1)", &[&tea])).await??;
    Ok(())
}
