//! The real process: the binary of `bin/lameduck`, whose package declares this test, and this test
//! binary started again with a role. Every test that starts a child process is here, and no other
//! test is. Between fork and exec a child holds every descriptor of its parent for a moment.

#[path = "../support/mod.rs"]
mod support;

mod blocked;
mod bounded;
mod check;
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
mod page;
mod pid1;
mod profiles;
mod proxy_protocol;
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
mod tls;
mod waiting_for;
mod watchdog;
