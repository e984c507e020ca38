//! Hello world with a complete lifecycle: the Go program that lameduck started from, in Rust.
//!
//! | Go | here |
//! |---|---|
//! | `APP_PORT`, `INTERNAL_PORT`, `APP_VERSION` | the same and more: [`lameduck::SETTINGS`] |
//! | a context per request, timeout 5 s | [`RequestContext`] in the extensions |
//! | `/liveness`, `/readiness` and a mutex around `ready` | served by the host, on its own thread |
//! | signal, readiness off, `Shutdown`, cancel, `Sleep(3 s)` | the host; one sleep: the lame duck |
//! | "closing down database connections" | a stop hook |
//! | "exiting cleanly!", whatever happened | a report, and an exit code that follows from it |
//!
//! ```text
//! $ APP_VERSION=1.2.3 cargo run --example hello
//! $ curl -i localhost:8080/             # hello world
//! $ curl -i localhost:8081/readiness    # 200; 503 after Ctrl-C, while / still responds,
//!                                       # with `connection: close`
//! $ curl -s localhost:8081/status       # the complete status
//! ```
//!
//! One Ctrl-C drains it, after five seconds as a lame duck, which a second Ctrl-C cuts short. `echo
//! $?` then prints 0.

use axum::{Extension, Router, routing::get};
use lameduck::{
    Hook, Host, RequestContext, RunOptions, Settings,
    cli::logging::{self, LogFormat},
};
use std::convert::Infallible;

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let router = Router::new().route("/", get(hello));
        let host = Host::builder(Settings::from_env()?);
        Ok(host.hook(Hook::on_stop("database", close_database)).serve(router))
    })
}

async fn hello(
    Extension(context): Extension<RequestContext>,
) -> ([(&'static str, String); 1], &'static str) {
    do_things(&context).await;
    ([("app-version", context.app_version().to_owned())], "hello world")
}

/// Does nothing, as in the Go program. Slow work gets the context, and stops when it is cancelled:
/// at the request's deadline, when the client is gone, or when the drain ends.
async fn do_things(context: &RequestContext) {
    tracing::info!(phase = %context.phase(), remaining = ?context.remaining(), "doing things");
    let things = std::future::ready(());
    context.cancellation_token().run_until_cancelled(things).await;
}

async fn close_database() -> Result<(), Infallible> {
    tracing::info!("closing down database connections");
    Ok(())
}
