//! A real process to restart, clients that follow the rules of HTTP, and a wire with latency.
//!
//! These tools see what a simulation cannot: the kernel's accept queue, its resets, and the real
//! binary under real signals. The tests on real sockets use them. `just soak` combines them, and
//! `just rollout` adds a real balancer.
#![expect(
    clippy::disallowed_methods,
    reason = "a harness outside the host: it lives in real time, and its tasks end with their runtime"
)]

pub mod balancer;
pub mod client;
pub mod hand_over;
pub mod process;
pub mod rollout;
pub mod totals;
pub mod wire;
