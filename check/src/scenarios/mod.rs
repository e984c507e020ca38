//! The scenarios, one file per family.

mod accept;
mod close;
mod cut;
mod drain;
mod exit;
mod http2;
mod idle;
mod lame_duck;
mod load;
mod log;
mod port;
mod ready;
mod request;
mod signal;
mod tls;

use crate::scenario::Scenario;

/// The families, in the order of reports.
pub const FAMILIES: &[&[Scenario]] = &[
    accept::SCENARIOS,
    lame_duck::SCENARIOS,
    ready::SCENARIOS,
    idle::SCENARIOS,
    request::SCENARIOS,
    http2::SCENARIOS,
    drain::SCENARIOS,
    cut::SCENARIOS,
    close::SCENARIOS,
    exit::SCENARIOS,
    signal::SCENARIOS,
    port::SCENARIOS,
    log::SCENARIOS,
    load::SCENARIOS,
    tls::SCENARIOS,
];
