//! Draws the clients of a scenario.

use super::{Dice, Edges};
use crate::scenario::{Client, Pacing, RequestKind, Scenario, StuckResponse, Traffic};

/// The kinds of clients that a scenario may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Once,
    Paced,
    KeepAlive,
    PerRequest,
    Http2,
    Http2Leaves,
    Pipelined,
    Late,
    ByteLess,
    HalfHead,
    InternalHalfHead,
    Leaves,
}

const KINDS: [Kind; 12] = [
    Kind::Once,
    Kind::Paced,
    Kind::KeepAlive,
    Kind::PerRequest,
    Kind::Http2,
    Kind::Http2Leaves,
    Kind::Pipelined,
    Kind::Late,
    Kind::ByteLess,
    Kind::HalfHead,
    Kind::InternalHalfHead,
    Kind::Leaves,
];

/// Draws some clients, of some kinds only. With `long_running`, one more client has a request that
/// outlasts every phase.
pub(super) fn draw(
    dice: &mut Dice,
    scenario: &Scenario,
    edges: &Edges,
    long_running: bool,
) -> Vec<Client> {
    let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| dice.one_in(3)).collect();
    if kinds.is_empty() {
        kinds.push(dice.pick(&KINDS));
    }
    let count = dice.pick(&[0, 1, 1, 2, 3, 4, 6]);
    let mut clients: Vec<Client> =
        (0..count).map(|_| client(dice, scenario, edges, &kinds)).collect();
    if long_running {
        let request_kind = match dice.below(4) {
            0 => RequestKind::Slow(60_000),
            1 => RequestKind::Stuck(60_000, StuckResponse::Chunked),
            2 => RequestKind::Stuck(60_000, StuckResponse::Length),
            _ => RequestKind::Stuck(60_000, StuckResponse::Nothing),
        };
        let at = edges.stop.saturating_sub(dice.pick(&[0, 50, 90]));
        clients.push(Client::once(at, request_kind));
    }
    clients
}

fn client(dice: &mut Dice, scenario: &Scenario, edges: &Edges, kinds: &[Kind]) -> Client {
    let kind = dice.pick(kinds);
    // A packet, a handshake, or a handshake and a request before the edge, so that they are in
    // progress when the edge comes.
    let lead = scenario.latency_ms.1 * dice.below(5);
    let many = matches!(kind, Kind::KeepAlive | Kind::PerRequest | Kind::Http2);
    // A partial head has a timeout while serving, too.
    let long_before = many || (kind == Kind::HalfHead && dice.one_in(2));
    let at_ms =
        if long_before { dice.below(edges.drain) } else { edges.aim(dice).saturating_sub(lead) };
    let request_kind = request_kind(dice, scenario, edges, at_ms);
    let (requests, every_ms) =
        if many { many_requests(dice, edges, at_ms) } else { (dice.between(2, 6), 0) };
    let traffic = match kind {
        Kind::Once => Traffic::Once(Pacing::Prompt),
        Kind::Paced => Traffic::Once(pacing(dice)),
        Kind::KeepAlive => Traffic::KeepAlive { requests, every_ms, retries: dice.one_in(2) },
        Kind::PerRequest => Traffic::PerRequest { requests, every_ms },
        Kind::Http2 => Traffic::Http2 { requests, every_ms },
        Kind::Http2Leaves => {
            let after_ms = dice.pick(&[1, 50, 400, 60_000]);
            Traffic::Http2Leaves { requests, after_ms }
        }
        Kind::Pipelined => Traffic::Pipelined { requests, every_ms: 0 },
        Kind::Late => {
            let after_ms = dice.pick(&[20, 100, 200, 235, 240, 245, 250, 300, 1_000]);
            Traffic::Late { after_ms: dice.about(after_ms), requests: 1, every_ms: 0 }
        }
        Kind::ByteLess => Traffic::ByteLess,
        Kind::HalfHead => Traffic::HalfHead,
        Kind::InternalHalfHead => Traffic::InternalHalfHead,
        Kind::Leaves => Traffic::Leaves {
            after_ms: dice.pick(&[1, 5, 20, 100, 500, 1_600, 3_000]),
            resets: !dice.one_in(3),
            half_closed: dice.one_in(4),
            next_ms: None,
        },
    };
    let stalls = matches!(traffic, Traffic::Once(Pacing::SlowReader(_, pause)) if pause >= 1_000);
    let request_kind = match traffic {
        Traffic::Once(Pacing::SlowUpload(..)) if dice.one_in(3) => {
            RequestKind::Unread(dice.pick(&[4_000, 60_000, 100_000]))
        }
        Traffic::Once(Pacing::SlowUpload(..)) => {
            RequestKind::Echo(dice.pick(&[100, 4_000, 60_000]))
        }
        Traffic::Once(Pacing::SlowReader(..)) if !stalls => {
            RequestKind::Echo(dice.pick(&[100, 4_000, 60_000]))
        }
        // Long requests, to see whether the host notices that the client has left.
        Traffic::Leaves { .. } if dice.one_in(2) => {
            let ms = 20_000 + dice.below(10_000);
            if dice.one_in(2) {
                RequestKind::Unlimited(ms)
            } else {
                RequestKind::Stuck(ms, StuckResponse::Nothing)
            }
        }
        Traffic::Once(Pacing::SlowReader(..)) if stalls => RequestKind::Bytes(400_000),
        // Less than the window of a stream, or more.
        Traffic::Http2Leaves { .. } => RequestKind::Bytes(dice.pick(&[5, 30_000, 90_000, 90_000])),
        Traffic::Once(_)
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. }
        | Traffic::Http2GoesOn { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Session { .. }
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::Http2Windowless { .. }
        | Traffic::Http2Resets { .. }
        | Traffic::Http2HalfFrame { .. }
        | Traffic::Http2Upload { .. }
        | Traffic::Http2Slowly { .. }
        | Traffic::Http2Stalls { .. }
        | Traffic::Stalls { .. }
        | Traffic::InternalHalfHead
        | Traffic::InternalStrangers { .. }
        | Traffic::SilentHttp2
        | Traffic::SlowHttp2 { .. }
        | Traffic::SlowHello { .. }
        | Traffic::Abandons { .. }
        | Traffic::InPieces(_)
        | Traffic::SendsOn(_)
        | Traffic::BadHeader(_)
        | Traffic::Upgraded { .. }
        | Traffic::ByteLess
        | Traffic::HalfHead => request_kind,
    };
    let varies = many || matches!(traffic, Traffic::Pipelined { .. });
    let then = (varies && dice.one_in(2)).then(|| self::request_kind(dice, scenario, edges, at_ms));
    // The trace identifies the request by its target, so the two must differ.
    let then = then.filter(|then| then.ask().target != request_kind.ask().target);
    let waits_for_settings = kind == Kind::Http2 && at_ms % 3 == 0;
    let then = then.into_iter().collect();
    Client { then, waits_for_settings, ..Client::new(at_ms, request_kind, traffic) }
}

/// Draws the number of requests and their pause so that they reach into the drain.
fn many_requests(dice: &mut Dice, edges: &Edges, at_ms: u64) -> (u64, u64) {
    let requests = dice.pick(&[3, 5, 12]);
    let reach = (edges.drain + dice.pick(&[0, 50, 300])).saturating_sub(at_ms);
    (requests, (reach / requests).max(1))
}

fn pacing(dice: &mut Dice) -> Pacing {
    match dice.below(4) {
        0 => Pacing::HeadPause(
            dice.pick(&[5, 50, 300, 950, 970, 1_050, 1_100, 9_900, 10_400, 12_000]),
        ),
        1 => Pacing::SlowUpload(
            dice.pick(&[10, 500, 8_000]),
            dice.pick(&[10, 100, 400, 4_800, 6_000, 12_000]),
        ),
        // The pause is longer than the drain waits for progress.
        2 if dice.one_in(2) => Pacing::SlowReader(1_000_000, 12_000),
        2 => Pacing::SlowReader(dice.pick(&[1_000, 4_000]), dice.pick(&[10, 100])),
        _ => Pacing::HalfClosed,
    }
}

fn request_kind(dice: &mut Dice, scenario: &Scenario, edges: &Edges, at_ms: u64) -> RequestKind {
    // When the handler begins: a handshake and a request after the client's start.
    let begins = at_ms + scenario.latency_ms.0 * 3;
    let until = |dice: &mut Dice, edge: u64| dice.about(edge).saturating_sub(begins);
    let ms = match dice.below(8) {
        0 => until(dice, edges.drain),
        1 => until(dice, edges.cancel),
        2 => until(dice, edges.abort),
        3 => {
            let deadline = scenario.request_timeout_ms.unwrap_or(100);
            dice.about(deadline)
        }
        4 => 60_000,
        _ => dice.pick(&[1, 5, 30, 200, 1_000]),
    };
    match dice.below(14) {
        0..=1 => RequestKind::Fast,
        2 => RequestKind::Head,
        10 => RequestKind::Unlimited(ms),
        11 => RequestKind::Unread(dice.pick(&[10, 4_000, 70_000, 11, 70_001])),
        12 => RequestKind::Bytes(dice.pick(&[10, 2_000, 2_000, 20_000, 70_000])),
        13 => RequestKind::Breaks,
        3..=5 => RequestKind::Slow(ms),
        6 => RequestKind::Stuck(
            ms,
            dice.pick(&[StuckResponse::Nothing, StuckResponse::Length, StuckResponse::Chunked]),
        ),
        7 => RequestKind::Stream(ms.min(3_000)),
        8 => RequestKind::Echo(dice.pick(&[10, 10, 1_000, 20_000])),
        _ => RequestKind::Panic,
    }
}
