//! The lifecycle of a process: a pure state machine without I/O, clock, locks or async.
//!
//! The phases follow each other in the order of [`Phase`], and none returns. `ARCHITECTURE.md` has
//! the diagram of a shutdown in time.
//!
//! Events go in, each with its time; actions come out. The host owns the facts (sockets, tasks,
//! time), this module owns the decisions. The policy can therefore be printed as a table, explored
//! exhaustively, and replayed from a log. `tests/core/` does the first two, and keeps the
//! table and its diagram in `tests/core/snapshots/`.
//!
//! This is floor 0: it imports only `core` and `alloc`, which `tests/documents/architecture.rs`
//! enforces. It has no requests and no connections: only the edges between phases pass through
//! here.

mod action;
mod event;
mod history;
mod machine;
mod moment;
mod phase;
mod plan;
mod requests;
mod timer;

pub use action::{Action, GiveUp};
pub use event::{Event, HookIndex, HookResult, Outcome, Signal, StopReason};
pub use history::{History, HookRecord, HookVerdict, PhaseSpan, Stop, Verdict};
pub use machine::Lifecycle;
pub use moment::Moment;
pub use phase::Phase;
pub(crate) use plan::BadSetting;
pub use plan::{
    ABORT_FLUSH, HookBudget, Plan, PlanError, START_RESULT_WAIT, WATCHDOG_SLACK,
    WORKER_RELEASE_MAX, WORKER_RELEASE_MIN,
};
pub use timer::Timer;
