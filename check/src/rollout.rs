//! A rolling restart of the servers of a balancer: three real processes, restarted in turn under
//! constant load.
//!
//! ```text
//! clients ──▶ HAProxy or nginx ──▶ server 0   each in turn: stop, wait for its exit,
//!             never reloaded   ├─▶ server 1   a successor on the same ports,
//!                              └─▶ server 2   wait until it is ready and the balancer knows
//! ```
//!
//! A client's request counts as failed unless a handler responded to it, completely and correctly.
//! The client never retries.

use crate::{
    balancer::{Backend, Balancer, Kind},
    load::{Habit, Load, RequestSpec, Wire, run},
    process::Output,
    restarts::{describe, end},
    server::{Plan, Server, excerpt, status_of},
    target::{Listen, Target, Url},
    trial::route,
};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// Settings of a rollout.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The balancer in front of the servers.
    pub kind: Kind,
    /// The server.
    pub target: Target,
    /// Clients that keep their connection.
    pub keeping: usize,
    /// Clients that open a new connection for every request.
    pub per_request: usize,
    /// Minimum number of restarts.
    pub restarts_min: u64,
    /// Minimum number of responses.
    pub responses_min: u64,
    /// Longest time of the load, even if the minimums are not reached.
    pub span_max: Duration,
}

/// Progress of a rollout.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Requests with a response until now.
    pub answered: u64,
    /// Requests failed until now.
    pub failed: u64,
}

/// Result of a rollout.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Number of restarts.
    pub restarts: u64,
    /// Requests that a handler responded to.
    pub answered: u64,
    /// All other requests.
    pub failed: u64,
    /// Duration of the load.
    pub span: Duration,
    /// Details of the first failures, from clients, from the balancer, and from servers that did
    /// not exit with 0.
    pub stories: Vec<String>,
    /// Servers whose exit was not clean.
    pub unclean_exits: u64,
    /// Why it could not go on, if it could not.
    pub error: Option<String>,
}

impl Outcome {
    /// Returns responses per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let answered = self.answered as f64;
        answered / self.span.as_secs_f64()
    }

    /// Returns whether servers were restarted under load without an error, and nothing failed.
    #[must_use]
    pub const fn is_perfect(&self) -> bool {
        let is_proved = self.error.is_none() && self.restarts > 0 && self.answered > 0;
        is_proved && self.failed == 0 && self.unclean_exits == 0
    }
}

const SERVERS: usize = 3;
/// Longest wait until the balancer responds.
const FIRST_MAX: Duration = Duration::from_secs(20);
/// Duration of the load before the first restart.
const WARM_UP: Duration = Duration::from_millis(300);

/// Runs the rollout, and reports the progress after every restart.
///
/// # Errors
/// If the load cannot begin: a process does not start, or the balancer does not respond, for
/// example. A later error is part of the result.
pub async fn roll(plan: &Rollout, progress: impl FnMut(Step)) -> Result<Outcome, String> {
    if matches!(plan.target.listen, Listen::At(_)) {
        return Err("three servers need three ports: use --port-env or {port}".to_owned());
    }
    if let Some(flag) = plan.target.fixed().first() {
        return Err(format!("{flag} is the same for all three servers: use {{port}} or {{port2}}"));
    }
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        let ports = Plan::new(&plan.target)?;
        start(&plan.target, ports, &mut servers).await?;
    }
    let backends: Vec<Backend> =
        servers.iter().map(|(server, _)| backend(server, &plan.target)).collect();
    let balancer = Balancer::start(plan.kind, &backends).map_err(|error| error.to_string())?;
    let responded = await_response(balancer.address, &plan.target.paths.plain, FIRST_MAX).await;
    responded.map_err(|error| format!("{error}; its output:\n{}", excerpt(&balancer.said())))?;

    let load = Arc::new(Load::of(Wire::direct(balancer.address), requests(&plan.target)));
    let mut clients = JoinSet::new();
    for (habit, count) in [(Habit::KeepAlive, plan.keeping), (Habit::PerRequest, plan.per_request)]
    {
        for _ in 0..count {
            clients.spawn(run(load.clone(), habit));
        }
    }
    let begin = Instant::now();
    let mut outcome = Outcome::default();
    let restarted = outcome.restart(plan, &mut servers, &load, progress).await;
    load.over.store(true, Relaxed);
    // What still runs serves until the clients have ended.
    while clients.join_next().await.is_some() {}
    outcome.error = restarted.err().or(load.expect_no_fault().err());
    outcome.span = begin.elapsed();
    (outcome.answered, outcome.failed) = (load.totals.answered(), load.totals.failed());
    outcome.stories.extend(load.totals.stories().lines().map(str::to_owned));
    if outcome.failed > 0 {
        outcome.stories.extend(balancer.said().lines().rev().take(20).map(str::to_owned));
    }
    Ok(outcome)
}

impl Outcome {
    /// Restarts the servers in turn, until the minimums are reached or the time is over.
    async fn restart(
        &mut self,
        plan: &Rollout,
        servers: &mut Vec<(Server, Plan)>,
        load: &Arc<Load>,
        mut progress: impl FnMut(Step),
    ) -> Result<(), String> {
        let end_max = Instant::now() + plan.span_max;
        sleep(WARM_UP).await;
        while (self.restarts < plan.restarts_min || load.totals.answered() < plan.responses_min)
            && Instant::now() < end_max
        {
            let (mut old, ports) = servers.remove(0);
            let (target, under) = (plan.target.clone(), load.clone());
            let ending = move || {
                let ended = end(&mut old, &target, &under);
                Ok((old, ended))
            };
            let (old, ended) = blocking(ending).await?;
            // After an error it may still serve. A kill would cut the requests of the load.
            servers.push((old, ports.clone()));
            let ended = ended?;
            if !ended.is_clean() {
                self.unclean_exits += 1;
                self.stories.push(describe(&ended));
            }
            servers.pop();
            start(&plan.target, ports, servers).await?;
            sleep(plan.kind.settling()).await;
            self.restarts += 1;
            load.expect_no_fault()?;
            progress(Step { answered: load.totals.answered(), failed: load.totals.failed() });
        }
        Ok(())
    }
}

fn backend(server: &Server, target: &Target) -> Backend {
    let itself = Url { address: server.address, path: target.paths.plain.clone() };
    Backend { address: server.address, probe: server.ready.clone().unwrap_or(itself) }
}

/// Mostly quick requests. Where there are routes for it, a third are POST, and a few are slow and
/// still run when a listener closes.
fn requests(target: &Target) -> Vec<RequestSpec> {
    let paths = &target.paths;
    let quick = || RequestSpec::get(&paths.plain);
    let post = |length: usize| match &paths.echo {
        Some(echo) => {
            let body: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            RequestSpec::post(echo, body.clone()).expecting(&body)
        }
        None => quick(),
    };
    let mut requests = Vec::new();
    for n in 0..8 {
        requests.extend([quick(), post(100 + 100 * n), quick(), quick(), post(10), quick()]);
    }
    let slow = paths.slow.iter().flat_map(|slow| [route(slow, 20), route(slow, 300)]);
    requests.extend(slow.map(|slow| RequestSpec::get(&slow)));
    requests
}

/// Starts a server, and waits until it is ready. One that is not stays: it may serve.
async fn start(
    target: &Target,
    ports: Plan,
    servers: &mut Vec<(Server, Plan)>,
) -> Result<(), String> {
    let target = target.clone();
    let starting = move || {
        let mut server = Server::spawn(&target, &ports, ports.command(&target), Output::Kept)?;
        let is_ready = server.await_ready(&target);
        Ok((server, ports, is_ready))
    };
    let (server, ports, is_ready) = blocking(starting).await?;
    servers.push((server, ports));
    is_ready
}

/// Waits until a request through the balancer succeeds.
async fn await_response(balancer: SocketAddr, path: &str, most: Duration) -> Result<(), String> {
    let end = Instant::now() + most;
    loop {
        let url = Url { address: balancer, path: path.to_owned() };
        let last = match blocking(move || Ok(status_of(&url))).await? {
            Ok(200) => return Ok(()),
            Ok(status) => format!("it responded {status}"),
            Err(error) => error.unwrap_or_else(|| "no connection was accepted".to_owned()),
        };
        if Instant::now() >= end {
            return Err(format!("the balancer does not respond 200 after {most:?}: {last}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::{Rollout, await_response, roll};
    use crate::{balancer::Kind, restarts::block_on, target::Target};
    use std::{io::Write, net::TcpListener, thread, time::Duration};

    // A balancer that responded 502 for 20 s "does not respond 200", whatever it had said.
    #[test]
    fn what_a_balancer_responds_in_place_of_200_is_reported() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let error = block_on(await_response(address, "/", Duration::ZERO)).unwrap().unwrap_err();
        assert_eq!(error, "the balancer does not respond 200 after 0ns: it responded 502");
        server.join().unwrap();
    }

    // A rollout with a fixed URL blamed the server: the stop of each of the three had stopped the
    // same one.
    #[test]
    fn a_rollout_refuses_what_is_the_same_for_its_servers() {
        let mut target = Target::new(vec!["/no/such/program".to_owned()]);
        let refusal = |target: &Target| {
            let plan = Rollout {
                kind: Kind::Nginx,
                target: target.clone(),
                keeping: 1,
                per_request: 1,
                restarts_min: 1,
                responses_min: 1,
                span_max: Duration::ZERO,
            };
            block_on(roll(&plan, |_| {})).unwrap().unwrap_err()
        };
        assert!(refusal(&target).contains("cannot start"));
        target.stop = "http:POST:http://127.0.0.1:81/stop/{pid}".parse().unwrap();
        assert!(refusal(&target).starts_with("--stop is the same for all three servers"));
        target.ready = Some("http://127.0.0.1:81/".to_owned());
        assert!(refusal(&target).starts_with("--ready is the same for all three servers"));
    }
}
