//! CPU profiles of this process: `rpprof` samples the stacks of all threads, by SIGPROF 99 times in
//! a second of CPU time.
//!
//! The signal handler unwinds by the tables of the executable (`framehop`), so no build needs frame
//! pointers. It calls the C runtime only to find the function that contains an address. The shared
//! libgcc does so without a lock since GCC 12 with glibc 2.35. Older ones lock, and a signal in the
//! middle of a panic would then deadlock, so no profile is taken there. `perf_event_open` is not
//! used, because the default seccomp profile of containers refuses it.

use super::flame_graph::FlameGraph;
use crate::runtime::{Profile, ProfileError, ProfileFormat, ProfileResult, Profiler};
use flate2::{Compression, write::GzEncoder};
use rpprof::{Frames, ProfilerGuardBuilder, Report, protos::Message};
use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    process,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
};

/// Samples in a second of CPU time. Not 100, which would stay in step with the kernel's ticks.
const FREQUENCY: i32 = 99;

/// The kernel starts one timer for the whole process.
static TAKING: AtomicBool = AtomicBool::new(false);

/// Takes profiles of this process.
#[derive(Debug)]
pub(crate) struct SamplingProfiler;

impl Profiler for SamplingProfiler {
    fn start(&self, profile: Profile, finish: Box<dyn FnOnce(ProfileResult) + Send>) {
        if TAKING.swap(true, Ordering::AcqRel) {
            return finish(Err(ProfileError::Busy));
        }
        let turn = TurnGuard;
        let spawned = thread::Builder::new().name("lameduck-profil".into()).spawn(move || {
            let taken = take(profile);
            drop(turn);
            finish(taken);
        });
        // Without a thread, `finish` was dropped uncalled.
        if let Err(error) = spawned {
            crate::log::warn!(%error, "cannot start the thread of a profile");
        }
    }

    fn command_line(&self) -> Vec<String> {
        env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
    }
}

/// Lets the next profile begin when it is dropped.
struct TurnGuard;

impl Drop for TurnGuard {
    fn drop(&mut self) {
        TAKING.store(false, Ordering::Release);
    }
}

fn take(profile: Profile) -> ProfileResult {
    match profile {
        Profile::Cpu { format, begun, end } => {
            check_temporary_directory().map_err(ProfileError::Unavailable)?;
            check_unwinder().map_err(ProfileError::Unavailable)?;
            let report =
                sample(begun, &end).map_err(|error| ProfileError::Failed(error.to_string()))?;
            warn_of_short_stacks(&report);
            encode(&report, format).map_err(|error| ProfileError::Failed(error.to_string()))
        }
        Profile::Heap(dump) => dump().map_err(ProfileError::Failed),
    }
}

/// Samples until the sender of `end` is dropped. Names the functions after that, so that the
/// signals have stopped by then.
fn sample(begun: Box<dyn FnOnce() + Send>, end: &Receiver<()>) -> Result<Report, rpprof::Error> {
    // Reads the unwind tables the first time, which takes a while.
    let guard = ProfilerGuardBuilder::default().frequency(FREQUENCY).build()?;
    begun();
    // Nothing is ever sent.
    let _ = end.recv();
    let samples = guard.report().build_unresolved()?;
    drop(guard);
    let data = samples.data.into_iter().map(|(stack, count)| (Frames::from(stack), count));
    let mut report = Report {
        data: Default::default(),
        timing: samples.timing,
        missed_samples: samples.missed_samples,
    };
    for (stack, count) in data {
        *report.data.entry(stack).or_default() += count;
    }
    Ok(report)
}

fn encode(report: &Report, format: ProfileFormat) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    match format {
        ProfileFormat::Protobuf => {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&report.pprof()?.encode_to_vec())?;
            Ok(gzip.finish()?)
        }
        ProfileFormat::Flamegraph => {
            let mut graph = FlameGraph::default();
            // In any order: the graph sorts the functions.
            report.data.iter().for_each(|(stack, count)| {
                let functions = stack.frames.iter().rev().flat_map(|frame| frame.iter().rev());
                let thread = [stack.thread_name_or_id()].into_iter();
                let samples = usize::try_from(*count).unwrap_or(0);
                graph.add(thread.chain(functions.map(rpprof::Symbol::name)), samples);
            });
            Ok(graph.to_svg()?.into_bytes())
        }
    }
}

/// Logs a warning if most stacks have one frame, since their callers are then unknown.
fn warn_of_short_stacks(report: &Report) {
    let samples = report.total_samples();
    let short: isize = report
        .data
        .iter()
        .filter_map(|(stack, count)| (stack.frames.len() <= 1).then_some(*count))
        .sum();
    let short = usize::try_from(short).unwrap_or(0);
    if short * 2 > samples {
        crate::log::warn!(samples, short, "most stacks of a profile are one frame deep");
    }
}

/// The sampler keeps rare stacks in a temporary file. It would keep a failure for ever.
fn check_temporary_directory() -> Result<(), String> {
    let path = env::temp_dir().join(format!("lameduck-profile-{}", process::id()));
    let created = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let _ = fs::remove_file(&path);
    match created {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(format!(
            "a profile needs a temporary file, and {} cannot be written: {error}; \
             mount a tmpfs there, or set TMPDIR",
            env::temp_dir().display()
        )),
    }
}

/// The function by which libgcc finds unwind tables without a lock.
const LOCK_FREE_SEARCH: &[u8] = b"_dl_find_object\0";

/// Checks that the unwinder in this process takes no lock, by the name of the function that it
/// calls.
fn check_unwinder() -> Result<(), String> {
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| format!("cannot read /proc/self/maps: {error}"))?;
    let unwinder = unwinder_path(&maps)?;
    let file = fs::read(unwinder)
        .map_err(|error| format!("cannot read the unwinder {}: {error}", unwinder.display()))?;
    if file.windows(LOCK_FREE_SEARCH.len()).any(|bytes| bytes == LOCK_FREE_SEARCH) {
        return Ok(());
    }
    Err(format!(
        "the unwinder {} may lock, so that a profile could block a panicking thread for ever; \
         profiles need libgcc of GCC 12 with glibc 2.35 or later (or a backport, as RHEL 9 has)",
        unwinder.display()
    ))
}

/// Returns the path of the shared libgcc in these memory maps. The unwinder of an executable
/// without one is part of the executable, where [`LOCK_FREE_SEARCH`] proves nothing: the executable
/// contains it in any case.
fn unwinder_path(maps: &str) -> Result<&Path, String> {
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let is_libgcc = |path: &&Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libgcc_s"))
    };
    paths.find(is_libgcc).ok_or_else(|| {
        "this executable uses no shared libgcc (libgcc_s), so its unwinder may lock, and a profile \
         could block a panicking thread for ever; link it dynamically, with glibc"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBC: &str = "7f00-7f01 r-xp 00000000 08:01 11   /usr/lib/x86_64-linux-gnu/libc.so.6\n";
    const LIBGCC: &str = "7f02-7f03 r-xp 00000000 08:01 12   /usr/lib/libgcc_s.so.1\n";
    const STATIC: &str = "5500-5501 r-xp 00000000 08:01 10   /srv/libgcc_s-app/service\n\
                          7ffe-7fff rw-p 00000000 00:00 0    [stack]\n";

    /// A flame graph of an idle process was a 500, although its profile in the other format was
    /// not.
    #[test]
    fn a_flame_graph_without_samples_says_so() {
        let (data, timing) = (Default::default(), Default::default());
        let idle = Report { data, timing, missed_samples: 0 };
        let svg = String::from_utf8(encode(&idle, ProfileFormat::Flamegraph).unwrap()).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains(">no samples: no CPU time was used</text>"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
        encode(&idle, ProfileFormat::Protobuf).unwrap();
    }

    #[test]
    fn an_executable_without_a_shared_libgcc_has_no_profiles() {
        let maps = [STATIC, LIBC, LIBGCC].concat();
        assert_eq!(unwinder_path(&maps), Ok(Path::new("/usr/lib/libgcc_s.so.1")));
        for maps in ["", STATIC, &[STATIC, LIBC].concat()] {
            let reason = unwinder_path(maps).unwrap_err();
            assert!(reason.contains("libgcc_s"), "{reason}");
        }
    }
}
