//! The simulation: a whole service, its clients and the network between them, replayed by seed.
//!
//! A [`World`](network::World) holds named hosts, a network that delays packets and may hold them
//! back, and one time. Three worlds exist and run the same scenarios. In two of them the time is
//! virtual and advances only when every task waits:
//!
//! ```text
//!                       scenario: servers, clients, link changes, a seed
//!                                          │
//!            ┌─────────────────────────────┼──────────────────────────────┐
//!     TurmoilNetWorld                TurmoilWorld                     LinuxWorld
//!  one paused runtime, a         one runtime a host, fixed      real sockets on loopback,
//!  kernel with handshake,        ticks, crash and bounce;       production's threads and
//!  backlog, windows, RST, and    connects wait for the          epoll, real time; not
//!  a pump that wakes only for    accept, RST is rare            replayable
//!  packets
//!            └─────────────────────────────┼──────────────────────────────┘
//!                                          │
//!                       Trace: records and wire bytes, one hash (P17)
//! ```
//!
//! Everything else that a host needs is here too: [`SimClock`], [`SimSpawner`],
//! [`ScriptedSignals`]. [`client`] and [`balancer`] produce the load. Everything that happens is
//! recorded in a [`Trace`].
//!
//! In the simulated worlds determinism is by construction: no wall time, no hash map, no unbiased
//! `select!`, no `watch`, one thread. All randomness comes from a
//! [`Seed`](lameduck::runtime::Seed). The tests run each seed twice, the second time on a fresh
//! thread.
//!
//! The host under test is the real one. [`host_run`] gives it a world and an [`app`], [`scenario`]
//! defines what happens to it, and [`oracle`] judges the trace.

pub mod app;
pub mod balancer;
mod blocking;
mod case;
pub mod checks;
pub mod client;
mod clock;
mod content;
pub mod draw;
pub mod explore;
pub mod fidelity;
pub mod harness;
pub mod hooks;
pub mod host_run;
mod metrics_page;
pub mod network;
mod observe;
pub mod oracle;
pub mod reloads;
pub mod rollout;
pub mod scenario;
pub mod shrink;
mod signals;
mod spawner;
mod spins;
mod status_page;
mod task_count;
pub mod tasks;
pub mod timeline;
pub mod trace;
mod turns;

pub use case::{Case, Recorded};
pub use clock::SimClock;
pub use harness::{
    Connection, Connector, Downstream, Failure, Passed, Received, ServerConnection, TestWorld,
    Trial, Trials,
    deploy::{
        Deploy, DeployFailure, DeployTrials, Ledger, Losses, Resource, ServerTrials, SimListener,
        StopSignal, explore_server,
    },
    explore,
};
pub use scenario::{Request, Statuses};
pub use signals::{ScriptedSignals, SignalSender, scripted_signals};
pub use spawner::{ProcessSpawner, SimSpawner};
pub use trace::Trace;
