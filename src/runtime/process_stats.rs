//! What the process uses of its machine.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Reads what the process uses. Absent where there is no process of its own, as in a simulation.
pub(crate) trait ProcessStats: fmt::Debug + Send + Sync + 'static {
    /// The use of now; `None` if the system does not tell.
    fn read(&self) -> Option<ProcessUsage>;
}

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    /// Time that its threads ran, in user code and in the kernel.
    pub(crate) cpu: Duration,
    /// Memory that lies in RAM.
    pub(crate) resident_bytes: u64,
    /// Memory that it has addresses for.
    pub(crate) virtual_bytes: u64,
    /// Descriptors that are open.
    pub(crate) descriptors: Option<u64>,
    /// Descriptors that may be open; `None` for no limit.
    pub(crate) descriptors_max: Option<u64>,
    /// When it began.
    pub(crate) started_at: Option<SystemTime>,
}
