//! The handlers.

use crate::{BoxError, Bug, PATIENCE, Shop, store};
use axum::{body::Body, extract::State, http::StatusCode};
use hyper_util::client::legacy::connect::Connect;
use lameduck::RequestContext;
use std::{convert::Infallible, time::Duration};
use tokio::time::{sleep, timeout};

/// Stores an order after it was paid, then sends the receipt.
pub(crate) async fn create<C>(
    State(shop): State<Shop<C>>,
    context: RequestContext,
    tea: String,
) -> Result<StatusCode, (StatusCode, String)>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let failed = |error: BoxError| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    shop.pay().await.map_err(failed)?;
    store(&shop.db, "orders", &tea).await.map_err(failed)?;
    tracing::info!(tea, "the order is stored");
    shop.audit.lock().expect("no handler panics").push(tea);
    match shop.bug {
        Bug::DetachedWork => drop(tokio::spawn(send_receipt())),
        Bug::IgnoredCancellation => context.spawn(sleep(Duration::from_secs(60))),
        Bug::PanickingWork => context.spawn(async { panic!("a receipt has no address") }),
        _ => context.spawn(send_receipt()),
    }
    Ok(StatusCode::CREATED)
}

impl<C: Connect + Clone + Send + Sync + 'static> Shop<C> {
    async fn pay(&self) -> Result<(), BoxError> {
        let uri = "http://payments/pay".parse()?;
        let response = timeout(PATIENCE, self.payments.get(uri)).await??;
        if response.status().is_success() { Ok(()) } else { Err("the payment was refused".into()) }
    }
}

async fn send_receipt() {
    sleep(Duration::from_millis(300)).await;
}

/// Counts the orders.
pub(crate) async fn count<C>(State(shop): State<Shop<C>>) -> Result<String, (StatusCode, String)> {
    let counted = async {
        let db = timeout(PATIENCE, shop.db.get()).await??;
        let row = timeout(PATIENCE, db.query_one("SELECT count(*) FROM orders", &[])).await??;
        Ok::<_, BoxError>(row.get::<_, i64>(0).to_string())
    };
    counted.await.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))
}

/// Sends a price every 100 ms, 30 in all.
pub(crate) async fn prices<C>(State(shop): State<Shop<C>>, context: RequestContext) -> Body {
    let is_endless = shop.bug == Bug::EndlessStream;
    let prices = futures_util::stream::unfold(0_u64, move |n| {
        let context = context.clone();
        async move {
            tokio::select! {
                biased;
                () = context.draining(), if !is_endless => None,
                () = sleep(Duration::from_millis(100)), if n < 30 || is_endless => {
                    Some((Ok::<_, Infallible>(format!("{n}\n")), n + 1))
                }
                else => None,
            }
        }
    });
    Body::from_stream(prices)
}
