//! Profiles of the process.

use std::{
    fmt,
    sync::{Arc, mpsc},
};

/// Takes profiles of the process. Absent where the host shares its process, as in a
/// simulation.
pub(crate) trait Profiler: fmt::Debug + Send + Sync + 'static {
    /// Takes one profile on a new thread, which calls `finish` with the result. At most
    /// one profile is taken at a time, whichever host of the process requests it.
    fn start(&self, profile: Profile, finish: Box<dyn FnOnce(ProfileResult) + Send>);

    /// The program and its arguments.
    fn command_line(&self) -> Vec<String>;
}

/// The file of a profile.
pub(crate) type ProfileResult = Result<Vec<u8>, ProfileError>;

/// What to take.
pub(crate) enum Profile {
    /// CPU time by stack. `begun` is called when the first sample can be taken; the sampling ends
    /// when the sender of `end` is dropped.
    Cpu { format: ProfileFormat, begun: Box<dyn FnOnce() + Send>, end: mpsc::Receiver<()> },
    /// What the user's closure returns.
    Heap(HeapProfile),
}

/// A user's closure that dumps a heap profile.
pub(crate) type HeapProfile = Arc<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// The format of a CPU profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProfileFormat {
    /// `profile.proto` in gzip, as `go tool pprof` reads it.
    Protobuf,
    /// A flame graph as SVG.
    Flamegraph,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProfileError {
    /// Another profile is being taken.
    Busy,
    /// This system cannot take it; with the reason.
    Unavailable(String),
    /// It failed; with the reason.
    Failed(String),
}
