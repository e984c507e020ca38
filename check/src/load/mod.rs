//! Clients that follow the rules of HTTP, over a wire with latency.

pub mod client;
pub mod totals;
pub mod wire;

pub use client::{Habit, Load, RequestSpec, run};
pub use totals::Totals;
pub use wire::Wire;
