//! Busy clients during a whole stop.

use crate::{
    load::{Habit, Load, RequestSpec, Wire, run},
    scenario::{Grade, Scenario, Weight},
    trial::{Abort, Trial, route},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Builder, task::JoinSet, time::timeout};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "load/latency",
    weight: Weight::Always(Grade::Should),
    needs: &[],
    does: "Busy clients, 1 to 40 ms away, keep connections or open one for every request during \
           the whole stop, and follow the rules of HTTP.",
    why: "Requests arrive at every moment of the stop, and a client sees an announcement later \
          than it was sent. A shutdown that loses nothing of a single client without latency may \
          lose requests of these.",
    rule: "RFC 9112 §9.5: a request on a kept connection may be repeated, one on a new \
           connection may not",
    repair: "Until the listener closes, accept and respond as before. Then respond to what has \
             arrived on each connection before it is closed.",
    play: latency,
}];

const CLIENTS: u64 = 5;
/// Responses of each client before the stop.
const WARM_UP: u64 = 4;
/// The stop of a long lame duck is not waited for.
const LOAD_MAX: Duration = Duration::from_secs(10);

fn latency(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = match &trial.target.paths.slow {
        Some(slow) => route(slow, 3),
        None => trial.target.paths.plain.clone(),
    };
    let far = Duration::from_millis(1)..=Duration::from_millis(40);
    let wire = Wire::new(trial.server()?.address, far);
    let load = Arc::new(Load::of(wire, vec![RequestSpec::get(&path)]));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut clients = JoinSet::new();
    for habit in [Habit::KeepAlive, Habit::PerRequest] {
        for _ in 0..CLIENTS {
            clients.spawn_on(run(load.clone(), habit), runtime.handle());
        }
    }
    let end = Instant::now() + LOAD_MAX;
    while load.totals.answered() < 2 * CLIENTS * WARM_UP && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    trial.stop()?;
    let end = Instant::now() + trial.target.grace.min(LOAD_MAX);
    trial.server()?.process.exit_until(end);
    load.over.store(true, Relaxed);
    // The SIGKILL would cut the last responses. One that takes longer than this is lost.
    runtime.block_on(join(&mut clients));
    let process = &mut trial.server()?.process;
    load.cut(|| process.kill());
    runtime.block_on(join(&mut clients));
    load.expect_no_fault()?;
    let totals = &load.totals;
    let refused = totals.refused_by_status.load(Relaxed);
    trial.findings.tries += totals.answered();
    let stories = totals.failures();
    let failed = usize::try_from(totals.lost() + refused).unwrap_or(usize::MAX);
    for story in stories.iter().cycle().take(failed) {
        trial.expect(false, || story.clone());
    }
    Ok(())
}

/// Waits for the end of the clients, for a bounded time.
async fn join(clients: &mut JoinSet<()>) {
    let _ = timeout(LOAD_MAX, async { while clients.join_next().await.is_some() {} }).await;
}
