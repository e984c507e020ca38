//! Background work that no shutdown loses.
//!
//! There are two kinds. The drain waits for both, and both are dropped only when the cancel wait is
//! nearly over:
//! - [`RequestContext::spawn`]: work that a request starts and that outlives its response. `POST
//!   /orders` responds with 202 at once, and the confirmation is sent afterwards. A bare
//!   `tokio::spawn` would lose it at exit.
//! - [`Builder::background_task`](lameduck::Builder::background_task): a task that runs as long as
//!   the host. It begins with Serving; if it fails, the host stops with exit code 1.
//!
//! The moment at which such a task should stop depends on where its work comes from:
//!
//! | source of its work | it takes no more at | because |
//! |---|---|---|
//! | outside: a queue, a schedule | `stopping()` | another process will take it |
//! | this process's handlers | `draining()` and an empty channel | handlers add work until then |
//! | none: it only cleans up | `cancelled()` | nothing needs it any more |
//!
//! The second row has two conditions: a lame duck still serves, and handlers still finish during
//! the drain. The task below polls a simulated queue, so it watches `stopping()`, and finishes the
//! current job.
//!
//! ```text
//! $ cargo run --example background
//! $ curl -i -X POST localhost:8080/orders     # 202, then press Ctrl-C at once
//! ```
//!
//! The log reports `no more jobs` at the stop request, `confirmation sent` some time after the
//! response, and `report: exit code 0 (clean)`.
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{Extension, Router, extract::State, http::StatusCode, routing::post};
use lameduck::{
    BackgroundTask, Host, RequestContext, RunOptions, Settings, TaskContext,
    cli::logging::{self, LogFormat},
};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::sleep;

/// Longer than a request takes, much shorter than a drain.
const CONFIRMATION: Duration = Duration::from_secs(1);
const JOB: Duration = Duration::from_millis(200);

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let router = Router::new().route("/orders", post(order)).with_state(Arc::default());
        Ok(Host::builder(Settings::from_env()?)
            .background_task(BackgroundTask::new("jobs", work))
            .serve(router))
    })
}

async fn order(
    State(orders): State<Arc<AtomicU64>>,
    Extension(context): Extension<RequestContext>,
) -> (StatusCode, String) {
    let order = orders.fetch_add(1, Relaxed) + 1;
    context.spawn(async move {
        // A real app would call a mail server.
        sleep(CONFIRMATION).await;
        tracing::info!(order, "confirmation sent");
    });
    (StatusCode::ACCEPTED, format!("order {order} is taken; a confirmation follows\n"))
}

async fn work(context: TaskContext) -> Result<(), Infallible> {
    let mut done = 0_u64;
    loop {
        tokio::select! {
            biased;
            () = context.stopping() => break,
            job = next_job() => {
                // Outside of the `select!`: a job that has begun is finished, even if a stop is
                // requested meanwhile.
                run(job).await;
                done += 1;
            }
        }
    }
    tracing::info!(done, phase = %context.phase(), "no more jobs");
    Ok(())
}

struct Job;

/// A simulated queue with a job now and then. Dropping the future must not lose a job, because the
/// `select!` may drop it.
async fn next_job() -> Job {
    sleep(JOB).await;
    Job
}

async fn run(_: Job) {
    sleep(JOB).await;
}
