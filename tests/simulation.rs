//! The real host in a simulated world: named scenarios, each run twice, and held against every promise that can be judged.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

#[path = "simulation/drain.rs"]
mod drain;
#[path = "simulation/stage.rs"]
mod stage;
