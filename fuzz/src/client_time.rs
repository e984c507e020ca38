//! Time of a client: the paused runtime's, not the host's clock.

use std::time::Duration;

#[expect(
    clippy::disallowed_methods,
    reason = "the client lives on the paused runtime's time, not on the host's clock"
)]
pub(crate) async fn pause_for(span: Duration) {
    tokio::time::sleep(span).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client lives on the paused runtime's time, not on the host's clock"
)]
pub(crate) async fn within<F: Future>(span: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(span, future).await.ok()
}
