//! The real process: the binary of `bin/lameduck`, which declares this test, and this test itself
//! run again with a role. Everything that starts a child process is here, and nothing else is:
//! between fork and exec a child holds every descriptor of its parent for a moment.

#[path = "../support/mod.rs"]
mod support;

mod blocked;
mod bounded;
mod contained;
mod deadline;
mod deploy;
mod drain;
mod drain_limit;
mod drill;
mod examples;
mod in_flight;
mod loud;
mod metrics;
mod operations;
mod order;
mod os_process;
mod pid1;
mod refused;
mod rollout;
mod separate;
mod signals;
mod start;
mod stragglers;
mod subscriber;
mod suspended;
mod systemd;
mod tcp_options;
mod waiting_for;
mod watchdog;
