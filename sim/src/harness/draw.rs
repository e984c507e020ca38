//! Draws a scenario for a user's service. The plan and the requests are given.

use crate::{
    draw::{downstream_faults, draw_with},
    scenario::{Client, Pacing, PlanMs, Request, RequestKind, Scenario, Traffic},
};
use lameduck::runtime::Seed;

/// Draws the scenario of a seed; `requests` must not be empty.
///
/// In addition to the drawn clients, each request is sent once while the service serves.
pub(super) fn draw(
    seed: u64,
    plan: PlanMs,
    request_timeout_ms: Option<u64>,
    requests: &[Request],
) -> Scenario {
    let mut scenario = draw_with(seed, plan, request_timeout_ms);
    for (n, client) in (1..).zip(&mut scenario.clients) {
        let chance = Seed(seed ^ 0x5e1f).nth(n);
        let Some(request) =
            usize::try_from(chance % requests.len() as u64).ok().and_then(|n| requests.get(n))
        else {
            continue;
        };
        client.request_kind = RequestKind::User(Box::new(request.clone()));
        client.then.clear();
        // The drain gives up slow clients, which is not the fault of the service.
        client.traffic = client.traffic.at_full_pace();
        if !request.is_single() {
            client.traffic = in_sequence(client.traffic);
        }
    }
    let stop = scenario.first_stop_ms().unwrap_or(0);
    for (n, request) in (1..).zip(requests) {
        let at_ms = stop * n / (requests.len() as u64 + 1);
        let request_kind = RequestKind::User(Box::new(request.clone()));
        let traffic = if request.is_single() {
            Traffic::Once(Pacing::Prompt)
        } else {
            Traffic::Session { times: 1, every_ms: 0 }
        };
        scenario.clients.push(Client::new(at_ms, request_kind, traffic));
    }
    let faults = downstream_faults(seed, &scenario);
    scenario.faults.extend(faults);
    scenario
}

/// Returns the traffic of a client whose requests depend on each other.
const fn in_sequence(traffic: Traffic) -> Traffic {
    match traffic {
        Traffic::KeepAlive { requests, every_ms, .. }
        | Traffic::PerRequest { requests, every_ms }
        | Traffic::Http2 { requests, every_ms } => Traffic::Session { times: requests, every_ms },
        silent @ (Traffic::ByteLess
        | Traffic::HalfHead
        | Traffic::InternalHalfHead
        | Traffic::InternalStrangers { .. }
        | Traffic::BadHeader(_)
        | Traffic::SilentHttp2
        | Traffic::SlowHttp2 { .. }
        | Traffic::SlowHello { .. }
        | Traffic::Abandons { .. }) => silent,
        Traffic::Once(_)
        | Traffic::Http2Leaves { .. }
        | Traffic::Http2GoesOn { .. }
        | Traffic::Http2Windowless { .. }
        | Traffic::Http2Resets { .. }
        | Traffic::Http2HalfFrame { .. }
        | Traffic::Http2Upload { .. }
        | Traffic::Http2Slowly { .. }
        | Traffic::Http2Stalls { .. }
        | Traffic::Stalls { .. }
        | Traffic::Pipelined { .. }
        | Traffic::InPieces(_)
        | Traffic::SendsOn(_)
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::Session { .. }
        | Traffic::Upgraded { .. } => Traffic::Session { times: 1, every_ms: 0 },
    }
}
