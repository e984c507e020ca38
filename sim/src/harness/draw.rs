//! Draws a scenario for a user's service. The plan and the requests are given.

use crate::{
    draw::draw_with,
    scenario::{Client, PlanMs, RequestKind, Scenario},
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
        // The drain gives up slow clients, which is not the fault of the service.
        client.traffic = client.traffic.at_full_pace();
    }
    scenario
}
