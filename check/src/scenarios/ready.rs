//! The readiness probe during a stop.

use crate::{
    scenario::{Need, Scenario, Weight},
    server::status_of,
    trial::{Abort, Trial},
};
use lameduck_wire::connection::is_refused;
use std::{thread, time::Duration};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ready/fails-first",
        weight: Weight::LameDuck,
        needs: &[Need::Ready],
        does: "Probes the readiness and opens connections after the stop, and compares when \
               each begins to fail.",
        why: "A balancer that probes the process must see the stop before connections are \
              refused. Otherwise it sends requests into the void until its next probe.",
        rule: "Kubernetes: Pod lifecycle, termination; HAProxy: `option httpchk`",
        repair: "Respond 503 from the stop request on, and close the listener later.",
        play: fails_first,
    },
    Scenario {
        name: "ready/responds",
        weight: Weight::LameDuck,
        needs: &[Need::Ready],
        does: "Probes the readiness after the stop until it fails, and looks how.",
        why: "A probe that is refused looks like a crash, and delays the withdrawal by the \
              probe's timeouts and retries.",
        rule: "Kubernetes: a probe without a response is a failure of the container",
        repair: "Close the listener of the probes last.",
        play: responds,
    },
];

/// A long lame duck is not waited for.
const LOOK_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// A probe is a request, a connect less: allow for the time of one look.
const SLACK: Duration = Duration::from_millis(50);

fn fails_first(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let address = trial.server()?.address;
    let Some(url) = trial.server()?.ready.clone() else { return Ok(()) };
    trial.stop()?;
    let (mut unready, mut refused) = (None, None);
    let most = trial.target.grace.min(LOOK_MAX);
    while trial.since_stop() < most && refused.is_none() {
        // The probe first: a refusal that follows it is later.
        if unready.is_none() && status_of(&url) != Ok(200) {
            unready = Some(trial.since_stop());
        }
        if is_refused(address) {
            refused = Some(trial.since_stop());
        }
        thread::sleep(POLL);
    }
    if let Some(at) = unready {
        trial.measure("not ready", at);
    }
    if let Some(at) = refused {
        trial.measure("refused", at);
    }
    let holds = match (unready, refused) {
        (Some(unready), Some(refused)) => unready < refused && unready < refused + SLACK,
        (Some(_), None) => true,
        (None, _) => false,
    };
    trial.expect(holds, || match (unready, refused) {
        (None, _) => "it stayed ready after the stop".to_owned(),
        _ => "connections were refused as soon as it was not ready".to_owned(),
    });
    Ok(())
}

fn responds(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let Some(url) = trial.server()?.ready.clone() else { return Ok(()) };
    trial.stop()?;
    let most = trial.target.grace.min(LOOK_MAX);
    let failed = loop {
        match status_of(&url) {
            Ok(200) if trial.since_stop() < most => thread::sleep(POLL),
            other => break other,
        }
    };
    trial.expect(matches!(failed, Ok(status) if status != 200), || match failed {
        Ok(_) => "it stayed ready after the stop".to_owned(),
        Err(None) => "the probe was refused before it had failed".to_owned(),
        Err(Some(end)) => format!("the probe before it had failed: {end}"),
    });
    Ok(())
}
