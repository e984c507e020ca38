//! Work in the background that no shutdown loses.
//!
//! Two kinds, both awaited by the drain, both dropped only when the cancel wait is nearly over:
//! - [`RequestContext::spawn`]: work that a request began and that outlives its answer. `POST /orders` answers 202 at once, and
//!   the confirmation is sent afterwards. A bare `tokio::spawn` would lose it at exit.
//! - [`Builder::background`](lameduck::Builder::background): a task as long-lived as the host. It begins with Serving; if it
//!   fails, the host stops with exit code 1.
//!
//! Which moment such a task watches depends on where its work comes from:
//!
//! | its work comes from | it takes no more at | because |
//! |---|---|---|
//! | outside: a queue, a schedule | `stopping()` | somebody else will take it |
//! | this process's own handlers | `draining()`, and then until its channel is empty | a lame duck still serves, and drain handlers still finish |
//! | nowhere: it only cleans up | `cancelled()` | nothing needs it any more |
//!
//! The one below polls a pretended queue, so it watches `stopping()`, and finishes the job at hand.
//!
//! ```text
//! $ cargo run --example background
//! $ curl -i -X POST localhost:8080/orders     # 202, then press Ctrl-C at once
//! ```
//!
//! The log says `no more jobs` at the stop request, `confirmation sent` some time after the answer, and `exit_code=0`.
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{Extension, Router, extract::State, http::StatusCode, routing::post};
use lameduck::{
    Host, RequestContext, Settings, TaskContext,
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

fn main() -> Result<(), String> {
    let log = logging::install(LogFormat::Auto, None)?;
    lameduck::main(
        || {
            let router = Router::new().route("/orders", post(order)).with_state(Arc::default());
            Ok(Host::builder()
                .settings(Settings::from_env()?)
                .background("jobs", work)
                .tower(router))
        },
        |_| drop(log),
    )
}

async fn order(
    State(orders): State<Arc<AtomicU64>>,
    Extension(context): Extension<RequestContext>,
) -> (StatusCode, String) {
    let order = orders.fetch_add(1, Relaxed) + 1;
    context.spawn(async move {
        // A real one would call a mail server.
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
                // No longer a part of the wait: a job once begun is finished, whoever asks for a stop meanwhile.
                run(job).await;
                done += 1;
            }
        }
    }
    tracing::info!(done, phase = %context.phase(), "no more jobs");
    Ok(())
}

struct Job;

/// A pretended queue, which has a job for us now and then. Dropping the future must lose no job, since the select does so.
async fn next_job() -> Job {
    sleep(JOB).await;
    Job
}

async fn run(_: Job) {
    sleep(JOB).await;
}
