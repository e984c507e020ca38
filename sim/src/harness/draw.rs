//! Draws a scenario for a user's service. The plan and the requests are given.

use crate::{
    draw::draw_with,
    scenario::{Client, Pacing, PlanMs, RequestKind, Scenario, Traffic},
};
use lameduck::runtime::Seed;

/// Draws the scenario of a seed; `observed` must not be empty.
pub(super) fn draw(
    seed: u64,
    plan: PlanMs,
    request_timeout_ms: Option<u64>,
    observed: &[RequestKind],
) -> Scenario {
    let mut scenario = draw_with(seed, plan, request_timeout_ms);
    if scenario.clients.is_empty() {
        let before = scenario.first_stop_ms().unwrap_or(0).saturating_sub(10);
        scenario.clients.push(Client::once(before, RequestKind::Fast));
    }
    for (n, client) in (1..).zip(&mut scenario.clients) {
        let chance = Seed(seed ^ 0x5e1f).nth(n);
        client.request_kind = usize::try_from(chance % observed.len() as u64)
            .map_or(RequestKind::Fast, |place| observed[place].clone());
        client.then = None;
        client.traffic = fair(client.traffic);
    }
    scenario
}

/// Replaces the clients that are so slow that the drain gives them up: that is not the service's
/// fault.
const fn fair(traffic: Traffic) -> Traffic {
    match traffic {
        Traffic::Once(Pacing::HeadPause(_) | Pacing::SlowUpload(..) | Pacing::SlowReader(..)) => {
            Traffic::Once(Pacing::Prompt)
        }
        Traffic::Http2Leaves { requests, .. } | Traffic::Http2Windowless { requests } => {
            Traffic::Http2 { requests, every_ms: 0 }
        }
        Traffic::Stalls { .. } => Traffic::Once(Pacing::Prompt),
        Traffic::Once(Pacing::Prompt | Pacing::HalfClosed)
        | Traffic::InternalHalfHead
        | Traffic::InternalStrangers { .. }
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::ByteLess
        | Traffic::HalfHead
        | Traffic::SilentHttp2
        | Traffic::Upgraded { .. } => traffic,
    }
}
