//! The resources that the process uses.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Reads the resource usage of the process. Absent where the host has no process of its own, as in
/// a simulation.
pub(crate) trait ProcessStats: fmt::Debug + Send + Sync + 'static {
    /// The current usage; `None` if the system does not provide it.
    fn read(&self) -> Option<ProcessUsage>;
}

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    /// CPU time of its threads, in user code and in the kernel.
    pub(crate) cpu: Duration,
    /// Memory in RAM.
    pub(crate) resident_bytes: u64,
    /// Size of its address space.
    pub(crate) virtual_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: Option<u64>,
    /// Limit of open descriptors; `None` for no limit.
    pub(crate) descriptors_max: Option<u64>,
    /// When the process started.
    pub(crate) started_at: Option<SystemTime>,
}
