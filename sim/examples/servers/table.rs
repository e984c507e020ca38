//! The servers, the platforms, and the lines of the table.

#![expect(clippy::disallowed_methods, reason = "the servers are written as their users would")]

use axum::{
    Router,
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use lameduck_sim::{
    Deploy, Losses, SimListener, StopSignal, explore, explore_server,
    harness::deploy::{BlueGreen, Kubernetes, ProbingBalancer},
};
use std::{future::Future, ops::Range, time::Duration};

/// The service: a page, orders that take 80 ms, and a health check.
fn router() -> Router {
    let order = || async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        "ordered"
    };
    Router::new()
        .route("/", get(|| async { "tea" }))
        .route("/orders", post(order))
        .route("/health", get(|| async {}))
}

/// `axum::serve`, as its documentation shows.
async fn axum_serve(listener: SimListener, stop: StopSignal) {
    let served = axum::serve(listener, router()).with_graceful_shutdown(stop).await;
    served.expect("it never fails");
}

/// hyper-util, as its example `server_graceful.rs` shows.
async fn hyper_util(mut listener: SimListener, stop: StopSignal) {
    let server = Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router()));
                let connection = server.serve_connection_with_upgrades(io, service).into_owned();
                let connection = graceful.watch(connection);
                tokio::spawn(async move { drop(connection.await) });
            }
            () = &mut stop => {
                drop(listener);
                break;
            }
        }
    }
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => {}
    }
}

/// Three replicas on each platform.
pub(crate) fn platforms() -> [(&'static str, Deploy); 3] {
    let rolling = Deploy::rolling(3);
    [
        ("Kubernetes", rolling.on(Kubernetes::default())),
        ("probing balancer", rolling.on(ProbingBalancer::default())),
        ("blue/green", rolling.on(BlueGreen::default())),
    ]
}

/// Deploys each server, once for each seed.
pub(crate) fn rows(deploy: Deploy, seeds: Range<u64>) -> [(&'static str, Losses); 3] {
    [
        ("axum::serve", other(axum_serve, deploy, seeds.clone())),
        ("hyper-util", other(hyper_util, deploy, seeds.clone())),
        ("lameduck", lameduck(deploy, seeds)),
    ]
}

fn other<Serving: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(SimListener, StopSignal) -> Serving + Send + Sync + 'static,
    deploy: Deploy,
    seeds: Range<u64>,
) -> Losses {
    let trials = explore_server(serve).get("/").post("/orders", "tea");
    trials.probe("/health").deploy(deploy).plays(seeds).run()
}

fn lameduck(deploy: Deploy, seeds: Range<u64>) -> Losses {
    let trials = explore(|world| world.host().serve(router())).get("/").post("/orders", "tea");
    trials.seeds(seeds).deploy(deploy).losses()
}

/// The head of the table.
pub(crate) const HEAD: &str = "\
| platform | server | deploys that lose a request | requests lost per deploy | lost by clients \
that retry | killed processes |
|---|---|---|---|---|---|";

/// Returns a line of the table.
pub(crate) fn line(platform: &str, server: &str, losses: &Losses) -> String {
    format!(
        "| {platform} | {server} | {} of {} | {:.1} | {} | {} |",
        losses.plays_with_loss,
        losses.plays,
        losses.per_deploy(),
        losses.lost_despite_retries,
        losses.killed
    )
}
