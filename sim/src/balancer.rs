//! A load balancer. It forwards requests to the replicas that were ready at the last probe.

use crate::client::{
    ClientId, Connect, ExchangePacing, Http1Client, RequestFailure, RequestSpec, ResponseSummary,
    one_request,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A server that receives requests from the balancer.
#[derive(Clone, Debug)]
pub struct Replica<C> {
    /// Name of the replica in the trace.
    pub name: String,
    /// Route to its main port.
    pub main: C,
    /// Route to its internal port.
    pub internal: C,
}

/// Balances requests round robin over the replicas whose last probe returned 200. It keeps a pool
/// of idle connections per replica, sends each request once, and counts failures. It never retries:
/// a lost request must be visible.
#[derive(Debug)]
pub struct Balancer<C: Connect> {
    client_id: ClientId,
    prober: ClientId,
    backends: Vec<Backend<C>>,
    next: AtomicUsize,
    sent: AtomicU64,
    failed: AtomicU64,
    unserved: AtomicU64,
}

#[derive(Debug)]
struct Backend<C: Connect> {
    replica: Replica<C>,
    ready: AtomicBool,
    idle: Mutex<Vec<Http1Client<C::Io>>>,
}

/// Counters of a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requests forwarded to a replica.
    pub sent: u64,
    /// Forwarded requests that got no complete response, or a 5xx.
    pub failed: u64,
    /// Requests for which no replica was ready.
    pub unserved: u64,
}

impl<C: Connect> Balancer<C> {
    /// Creates a balancer over `replicas`, none of which is ready yet. It forwards requests as
    /// `client_id` and probes as `prober`.
    pub fn new(
        client_id: ClientId,
        prober: ClientId,
        replicas: impl IntoIterator<Item = Replica<C>>,
    ) -> Arc<Self> {
        let backend = |replica| Backend {
            replica,
            ready: AtomicBool::new(false),
            idle: Mutex::new(Vec::new()),
        };
        Arc::new(Self {
            client_id,
            prober,
            backends: replicas.into_iter().map(backend).collect(),
            next: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
        })
    }

    /// Probes `/readiness` of each replica every `interval`, for ever. A failed probe or a status
    /// other than 200 marks the replica as not ready at once.
    pub async fn probe(&self, interval: Duration) {
        let ask = RequestSpec::get("/readiness");
        loop {
            for backend in &self.backends {
                let answer = one_request(
                    &self.prober,
                    &backend.replica.internal,
                    &ask,
                    ExchangePacing::PROMPT,
                )
                .await;
                let ready = answer.is_ok_and(|done| done.status == 200);
                if backend.ready.swap(ready, Ordering::Relaxed) != ready {
                    let event = if ready { "in rotation" } else { "out of rotation" };
                    self.prober.tell(event, &[("replica", backend.replica.name.as_str().into())]);
                }
            }
            crate::client::pause(interval).await;
        }
    }

    /// Forwards one request to the next ready replica; returns `None` if no replica is ready.
    pub async fn forward(
        &self,
        ask: &RequestSpec,
    ) -> Option<Result<ResponseSummary, RequestFailure>> {
        let Some(backend) = self.next_backend() else {
            self.unserved.fetch_add(1, Ordering::Relaxed);
            self.client_id.tell("unserved", &[("target", ask.target.as_str().into())]);
            return None;
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        let end = backend.send(&self.client_id, ask).await;
        if end.as_ref().map_or(true, |done| done.status >= 500) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.client_id.tell(
                "lost",
                &[
                    ("replica", backend.replica.name.as_str().into()),
                    ("target", ask.target.as_str().into()),
                ],
            );
        }
        Some(end)
    }

    /// Returns the current counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            unserved: self.unserved.load(Ordering::Relaxed),
        }
    }

    fn next_backend(&self) -> Option<&Backend<C>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let ready: Vec<_> =
            self.backends.iter().filter(|backend| backend.ready.load(Ordering::Relaxed)).collect();
        ready.get(next % ready.len().max(1)).copied()
    }
}

impl<C: Connect> Backend<C> {
    async fn send(
        &self,
        client_id: &ClientId,
        ask: &RequestSpec,
    ) -> Result<ResponseSummary, RequestFailure> {
        let mut http1_client = match self.idle_connection() {
            Some(http1_client) => http1_client,
            None => Http1Client::open(client_id, &self.replica.main).await?,
        };
        let done = http1_client.exchange(client_id, ask, ExchangePacing::PROMPT).await?;
        if done.keeps_alive {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(http1_client);
        }
        Ok(done)
    }

    /// Returns an idle connection on which neither an end nor unexpected bytes have been received.
    fn idle_connection(&self) -> Option<Http1Client<C::Io>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut http1_client) = idle.pop() {
            if http1_client.is_open() {
                return Some(http1_client);
            }
        }
        None
    }
}
