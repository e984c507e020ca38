//! What services report about writes, messages and resources, so that deploys can be judged.

use crate::trace::Trace;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Event of a ledger that was created.
pub(super) const OPENED: &str = "ledger";
/// Event of a durable write.
pub(super) const WROTE: &str = "wrote";
/// Event of a message that a consumer got.
pub(super) const DELIVERED: &str = "delivered";
/// Event of a message that is done.
pub(super) const ACKNOWLEDGED: &str = "acknowledged";
/// Event of a message that was given back.
pub(super) const RETURNED: &str = "returned";
/// Event of a resource that was used.
pub(super) const USED: &str = "used";
/// Event of a resource that was closed.
pub(super) const CLOSED: &str = "closed";

/// What a database or a queue has done, as it sees it itself. Get one from
/// [`TestWorld::ledger`](crate::TestWorld::ledger), and call it in the code of the
/// [`Downstream`](crate::Downstream): what a process leaves at its exit has no effect on that.
///
/// A write is known by its key: what clients send in place of `{key}` in a request.
#[derive(Clone, Debug)]
pub struct Ledger {
    name: Arc<str>,
    trace: Trace,
}

impl Ledger {
    pub(in crate::harness) fn new(name: &str, trace: Trace) -> Self {
        trace.record(name, OPENED, &[]);
        Self { name: name.into(), trace }
    }

    fn record(&self, event: &'static str, of: &str) {
        self.trace.record(&self.name, event, &[("of", of.into())]);
    }

    /// Records that the write with this key is durable. A write that is recognised as a repetition
    /// and ignored must not be recorded.
    pub fn wrote(&self, key: &str) {
        self.record(WROTE, key);
    }

    /// Records that a consumer got a message.
    pub fn delivered(&self, message: &str) {
        self.record(DELIVERED, message);
    }

    /// Records that a consumer has acknowledged a message.
    pub fn acknowledged(&self, message: &str) {
        self.record(ACKNOWLEDGED, message);
    }

    /// Records that a message will be delivered again, because its consumer gave it back or has
    /// left.
    pub fn returned(&self, message: &str) {
        self.record(RETURNED, message);
    }
}

/// Something that a process must not use after its stop hook ran, such as a pool. Get one from
/// [`TestWorld::resource`](crate::TestWorld::resource).
#[derive(Clone, Debug)]
pub struct Resource {
    name: Arc<str>,
    process: Arc<str>,
    trace: Trace,
    /// Cancelled when the process has exited. What it has left may still run in the simulation.
    gone: Option<CancellationToken>,
}

impl Resource {
    pub(in crate::harness) fn new(
        name: &str,
        process: &str,
        trace: Trace,
        gone: Option<CancellationToken>,
    ) -> Self {
        Self { name: name.into(), process: process.into(), trace, gone }
    }

    /// Records that it is used, unless its process has exited.
    pub fn used(&self) {
        self.record(USED);
    }

    /// Records that it is closed, unless its process has exited. Call it in the stop hook.
    pub fn closed(&self) {
        self.record(CLOSED);
    }

    fn record(&self, event: &'static str) {
        if !self.gone.as_ref().is_some_and(CancellationToken::is_cancelled) {
            self.trace.record(&self.process, event, &[("of", (*self.name).into())]);
        }
    }
}
