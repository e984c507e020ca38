//! The clients of a deploy. Each sends one request at a time, as its platform routes it.

use super::{
    rollout::host_name,
    rotation::Rotation,
    scenario::{DeployClient, Retries},
};
use crate::{
    client::{ClientId, ExchangePacing, Http1Client, RequestFailure, RequestSpec, Route, pause},
    harness::{downstream::Serving, proof::NO_VALUE},
    host_run::MAIN_PORT,
    network::{HostNetwork, TurmoilNetHost},
    scenario::{Previous, Request},
    trace::Trace,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Field by which the server recognises a repeated request.
pub(super) const KEY_FIELD: &str = "idempotency-key";
/// Most repetitions of a request.
const REPETITIONS_MAX: u32 = 5;
/// Pause before the first repetition; it doubles.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// How long a client waits for a response.
const MAX_WAIT: Duration = Duration::from_secs(30);

type Stream = <TurmoilNetHost as HostNetwork>::Stream;

/// A request that a client has made, with all its repetitions.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) client: Arc<str>,
    /// The request, and which of those that follow each other it was.
    pub(super) request: Request,
    pub(super) retries: Retries,
    /// What `{key}` stood for, if the request has it.
    pub(super) key: Option<String>,
    /// Number of times that it was sent.
    pub(super) attempts: u32,
    pub(super) ended: Duration,
    pub(super) last: Attempt,
}

/// One attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The host that it was sent to.
    pub(super) target: Option<usize>,
    /// When the last response was received on the same connection.
    pub(super) used: Option<Duration>,
    pub(super) result: AttemptResult,
}

#[derive(Clone, Debug)]
pub(super) enum AttemptResult {
    Response {
        status: u16,
        body: String,
    },
    Failed(RequestFailure),
    /// No process gets requests.
    Unserved,
}

impl Observed {
    /// Whether the client got the response that it wants.
    pub(super) fn succeeded(&self) -> bool {
        matches!(&self.last.result, AttemptResult::Response { status, body }
            if self.request.expects(u64::from(*status)) && self.request.misses(body).is_none())
    }

    /// Whether the response confirms that the request was done. By 304, 307 and 308 nothing was
    /// done (RFC 9110 §15.4).
    pub(super) fn is_acknowledged(&self) -> bool {
        self.succeeded()
            && matches!(&self.last.result, AttemptResult::Response { status: 200..=399, .. })
            && !matches!(&self.last.result, AttemptResult::Response { status: 304 | 307 | 308, .. })
    }

    /// Whether the response is none that the client accepts.
    pub(super) fn is_refused(&self) -> bool {
        matches!(&self.last.result, AttemptResult::Response { status, .. }
            if self.request.refuses(u64::from(*status)))
    }

    /// Returns the text that an expected response does not have in its body.
    pub(super) fn missed(&self) -> Option<&str> {
        let AttemptResult::Response { status, body } = &self.last.result else { return None };
        let is_expected = self.request.expects(u64::from(*status));
        self.request.misses(body).filter(|_| is_expected)
    }

    /// Returns the cause if the client got no response, or an error of the server.
    pub(super) fn lost(&self) -> Option<String> {
        match &self.last.result {
            AttemptResult::Response { status, .. } => (*status >= 500
                && self.request.refuses(u64::from(*status)))
            .then(|| status.to_string()),
            AttemptResult::Failed(failure) => Some(failure.how.name().to_owned()),
            AttemptResult::Unserved => Some("unserved".to_owned()),
        }
    }
}

/// What all clients share.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) host: TurmoilNetHost,
    pub(super) rotation: Arc<Rotation>,
    /// The connections of a balancer, if there is one.
    pub(super) pool: Option<Arc<Mutex<Vec<Kept>>>>,
    pub(super) trace: Trace,
    pub(super) serving: Serving,
    pub(super) over: CancellationToken,
    pub(super) observed: Arc<Mutex<Vec<Observed>>>,
}

/// An idle connection.
#[derive(Debug)]
pub(super) struct Kept {
    target: usize,
    used: Duration,
    connection: Http1Client<Stream>,
}

/// One client.
struct Session {
    traffic: Traffic,
    client_id: ClientId,
    name: Arc<str>,
    node: u64,
    client: DeployClient,
    kept: Option<Kept>,
    turn: usize,
}

/// Returns what `{key}` stands for in one of the requests that follow each other, such as
/// `client-0-7`, and `client-0-7-1` in the one after it.
fn key(client: &str, number: u64, step: usize) -> String {
    let first = format!("{client}-{number}");
    if step == 0 { first } else { format!("{first}-{step}") }
}

impl Traffic {
    /// Sends the requests of client number `n` until the deploy has ended.
    pub(super) async fn run(self, n: usize, client: DeployClient) {
        let name: Arc<str> = format!("client-{n}").into();
        let client_id = ClientId::new(Arc::clone(&name), self.trace.clone())
            .with_max_wait(MAX_WAIT)
            .with_bodies(true);
        let (serving, over) = (self.serving.clone(), self.over.clone());
        serving.begun().await;
        pause(Duration::from_millis(client.at_ms)).await;
        let every = Duration::from_millis(client.every_ms);
        let mut session = Session {
            // Behind a balancer, all requests come from the same node.
            node: if self.pool.is_some() { 0 } else { n as u64 },
            traffic: self,
            client_id,
            name,
            client,
            kept: None,
            turn: n,
        };
        let mut number = 0_u64;
        while !over.is_cancelled() {
            session.send(number).await;
            number += 1;
            pause(every).await;
        }
    }
}

impl Session {
    /// Sends the request and those that follow it.
    async fn send(&mut self, number: u64) {
        let first = self.client.request.clone();
        let mut previous: Option<Previous> = None;
        for (step, request) in first.steps().enumerate() {
            if let Some(value) = previous.as_ref().and_then(|found| request.missing_value(found)) {
                let fields = [("of", request.name().into()), ("what", value.into())];
                return self.client_id.tell(NO_VALUE, &fields);
            }
            let key = key(&self.name, number, step);
            let Some(next) = self.send_step(request, &key, previous.as_ref()).await else { return };
            previous = Some(next);
        }
    }

    /// Sends one request, again as its client may. Returns its response if it is as expected.
    async fn send_step(
        &mut self,
        request: &Request,
        key: &str,
        previous: Option<&Previous>,
    ) -> Option<Previous> {
        let (spec, has_key) = request.spec(previous).with_key(key);
        let repeatable = spec.method.is_idempotent()
            || spec.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(KEY_FIELD));
        let mut attempts = 0;
        let (last, response) = loop {
            attempts += 1;
            let (attempt, response) = self.attempt(&spec).await;
            if attempts > REPETITIONS_MAX || !self.repeats(&attempt, repeatable) {
                break (attempt, response);
            }
            pause(REPEAT_AFTER * (1 << (attempts - 1))).await;
        };
        let observed = Observed {
            client: Arc::clone(&self.name),
            request: request.clone(),
            retries: self.client.retries,
            key: has_key.then(|| key.to_owned()),
            attempts,
            ended: self.now(),
            last,
        };
        let succeeded = observed.succeeded();
        let all = &self.traffic.observed;
        all.lock().unwrap_or_else(PoisonError::into_inner).push(observed);
        response.filter(|_| succeeded)
    }

    /// Whether the client sends the request again: it was not sent at all, or it can be repeated.
    fn repeats(&self, attempt: &Attempt, repeatable: bool) -> bool {
        if self.client.retries == Retries::Never {
            return false;
        }
        match &attempt.result {
            AttemptResult::Response { status, .. } => repeatable && *status >= 502,
            AttemptResult::Failed(failure) => repeatable || failure.was_not_sent(),
            AttemptResult::Unserved => true,
        }
    }

    async fn attempt(&mut self, spec: &RequestSpec) -> (Attempt, Option<Previous>) {
        let (kept, fresh) = match self.idle_connection() {
            Some(kept) => (kept, false),
            None => match self.connect().await {
                Ok(kept) => (kept, true),
                Err(attempt) => return (attempt, None),
            },
        };
        let Kept { target, used, mut connection } = kept;
        let done = connection.exchange(&self.client_id, spec, ExchangePacing::PROMPT).await;
        let previous = connection.take_last();
        let result = match done {
            Ok(done) => {
                if done.keeps_alive {
                    self.keep(Kept { target, used: self.now(), connection });
                }
                AttemptResult::Response { status: done.status, body: previous.body.clone() }
            }
            Err(failure) => AttemptResult::Failed(failure),
        };
        let used = (!fresh).then_some(used);
        (Attempt { target: Some(target), used, result }, Some(previous))
    }

    async fn connect(&mut self) -> Result<Kept, Attempt> {
        let Some(target) = self.next_target() else {
            self.client_id.tell("unserved", &[]);
            return Err(Attempt { target: None, used: None, result: AttemptResult::Unserved });
        };
        let route = Route::new(self.traffic.host.clone(), host_name(target), MAIN_PORT);
        match Http1Client::open(&self.client_id, &route).await {
            Ok(connection) => Ok(Kept { target, used: self.now(), connection }),
            Err(failure) => {
                let result = AttemptResult::Failed(failure);
                Err(Attempt { target: Some(target), used: None, result })
            }
        }
    }

    /// Returns an idle connection: the client's own, or one of the balancer to the next server.
    fn idle_connection(&mut self) -> Option<Kept> {
        let Some(pool) = self.traffic.pool.clone() else {
            let mut kept = self.kept.take()?;
            return kept.connection.is_open().then_some(kept);
        };
        let targets = self.traffic.rotation.view(self.node);
        let target = targets.get(self.turn % targets.len().max(1)).copied()?;
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(place) = pool.iter().rposition(|kept| kept.target == target) {
            let mut kept = pool.remove(place);
            if kept.connection.is_open() {
                self.turn += 1;
                return Some(kept);
            }
        }
        None
    }

    fn next_target(&mut self) -> Option<usize> {
        let targets = self.traffic.rotation.view(self.node);
        let target = targets.get(self.turn % targets.len().max(1)).copied();
        self.turn += 1;
        target
    }

    fn keep(&mut self, kept: Kept) {
        match &self.traffic.pool {
            Some(pool) => pool.lock().unwrap_or_else(PoisonError::into_inner).push(kept),
            None if self.client.keeps_connection => self.kept = Some(kept),
            None => {}
        }
    }

    fn now(&self) -> Duration {
        self.traffic.trace.now().unwrap_or_default()
    }
}
