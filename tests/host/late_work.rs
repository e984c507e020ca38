//! P13: work that begins after the drain is counted.

use crate::support::{App, app::Workers, builder, pause};
use axum::{Router, routing::get};
use lameduck::{Hook, RequestContext};
use std::{future::pending, io};

/// A task that nothing waits for spawned work while a stop hook ran. The work was lost with its
/// worker, and the exit code was 0. Without threads of their own, the operator read that it blocks
/// its thread.
#[test]
fn work_that_is_spawned_during_a_stop_hook_is_dropped_and_counted() {
    for workers in [Workers::Threads(1), Workers::Task] {
        #[expect(clippy::disallowed_methods, reason = "a task that the host does not know")]
        let handler = |context: RequestContext| async move {
            drop(tokio::spawn(async move {
                context.root_cancelled().await;
                context.spawn(pending());
            }));
            "detached"
        };
        let slow = Hook::on_stop("slow", || async {
            pause(300).await;
            Ok::<(), io::Error>(())
        });
        let host = builder().hook(slow).serve(Router::new().route("/", get(handler)));
        let app = App::start_on(host, workers);
        assert_eq!(app.get("/").body(), "detached");
        let report = app.end();
        assert_eq!((report.code(), report.work_dropped), (3, 1), "{workers:?}: {report}");
    }
}
