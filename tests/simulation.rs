//! The real host in a simulated world. Each named scenario runs twice with the same trace, byte for
//! byte (P17), and is judged by every promise that can be judged from outside.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

#[path = "simulation/announcements.rs"]
mod announcements;
#[path = "simulation/deadlines.rs"]
mod deadlines;
#[path = "simulation/drain.rs"]
mod drain;
#[path = "simulation/hooks.rs"]
mod hooks;
#[path = "simulation/impatience.rs"]
mod impatience;
#[path = "simulation/rollout.rs"]
mod rollout;
#[path = "simulation/stage.rs"]
mod stage;
#[path = "simulation/stragglers.rs"]
mod stragglers;
#[path = "simulation/timeouts.rs"]
mod timeouts;
#[path = "simulation/traffic.rs"]
mod traffic;
