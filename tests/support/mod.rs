//! Shared by the tests on real sockets: the real process ([`service`]), the host in the test's
//! process ([`app`]), raw clients ([`wire`], [`frames`]), and bounded waits.

#![allow(dead_code, reason = "every test file takes what it needs")]
#![allow(unused_imports, reason = "every test file takes what it needs")]

pub(crate) mod app;
#[cfg(target_os = "linux")]
pub(crate) mod deaf;
pub(crate) mod erased;
pub(crate) mod frames;
pub(crate) mod os;
pub(crate) mod service;
pub(crate) mod wire;

pub(crate) use app::{App, builder, quick_plan, settings};
pub(crate) use erased::service_fn;
pub(crate) use service::{Service, run_to_end};
pub(crate) use wire::{Answer, Client, End, get};

use std::time::{Duration, Instant};

/// Returns the path of a file of the repository, from any package.
pub(crate) fn repository(path: &str) -> std::path::PathBuf {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.unwrap_or(package).join(path)
}

/// The longest wait of a test. It is generous: a test that reaches it has failed.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "these tests live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A pause inside a handler.
#[expect(clippy::disallowed_methods, reason = "these tests live in real time")]
pub(crate) async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Blocks the calling thread, as a bad handler or hook does. It is also the tick of [`until`].
#[expect(
    clippy::disallowed_methods,
    reason = "blocking is what is tested, or the pause between two looks"
)]
pub(crate) fn block(span: Duration) {
    std::thread::sleep(span);
}

/// Runs `work` on a thread of its own. `join` returns the result.
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]
pub(crate) fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().spawn(work).unwrap()
}

/// Polls until `look` returns a value, or fails with `what`.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < MAX_WAIT, "waited in vain: {what}");
        block(Duration::from_millis(5));
    }
}

/// Polls until `holds` is true, or fails with `what`.
#[track_caller]
pub(crate) fn until_holds(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// Fails unless one of three attempts takes less than `limit`, which is shorter than the delay that
/// a bug would cause. A busy machine may delay one of them, and a bug delays each.
#[track_caller]
pub(crate) fn soon(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.last().is_none_or(|last| *last >= limit) {
        assert!(took.len() < 3, "each took longer than {limit:?}: {took:?}");
        took.push(attempt());
    }
}

/// Plays rounds until one was in time, and returns its result. A round returns `None` if the
/// machine delayed it for so long that it shows nothing.
#[track_caller]
pub(crate) fn in_time<T>(round: impl FnMut() -> Option<T>) -> T {
    std::iter::repeat_with(round)
        .take(5)
        .flatten()
        .next()
        .expect("each of five rounds was too slow")
}

/// Measures how late the machine wakes this process, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Stalls(std::sync::Arc<std::sync::Mutex<Duration>>);

impl Stalls {
    #[expect(clippy::unwrap_used, reason = "nothing panics with the lock")]
    pub(crate) fn watch() -> Self {
        let stalls = Self::default();
        let longest = std::sync::Arc::downgrade(&stalls.0);
        aside(move || {
            while let Some(longest) = longest.upgrade() {
                let begin = now();
                block(Duration::from_millis(5));
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(begin.elapsed());
            }
        });
        stalls
    }

    /// Whether a client of this process may have been too late for a grace of 250 ms.
    #[expect(clippy::unwrap_used, reason = "nothing panics with the lock")]
    pub(crate) fn delay_clients(&self) -> bool {
        *self.0.lock().unwrap() > Duration::from_millis(80)
    }
}

/// Returns a path in the temporary directory that no other test uses.
pub(crate) fn scratch_path(name: &str) -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("lameduck-{}-{number}-{name}", std::process::id()))
}

/// Whether a tool that not every machine has is installed. In CI it must be; elsewhere its absence
/// is printed.
#[expect(clippy::print_stderr, clippy::disallowed_macros, reason = "for whoever runs the tests")]
pub(crate) fn is_at_hand(tool: &str, found: bool) -> bool {
    if !found {
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_ci, "{tool} is missing, and in CI it must be there: see .ci/run");
        eprintln!("NOT TRIED: {tool} is missing");
    }
    found
}
