//! P17: the real host in a simulated world. Each named scenario runs twice with the same trace,
//! byte for byte, and is judged by every promise that can be judged from outside.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

mod announcements;
mod drain;
mod fuzz;
mod hooks;
mod impatience;
mod request_deadlines;
mod rollout;
mod stage;
mod stragglers;
mod timeouts;
mod traffic;
