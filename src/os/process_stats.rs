//! Resource usage of the process, read from `/proc`. It needs three numbers of one line, so no
//! crate.
//!
//! The file that is read at every scrape is opened at the start and kept open. Descriptors are
//! counted without opening one. So a process that has run out of descriptors still reports its
//! usage.

use super::descriptors_max;
use crate::runtime::{ProcessStats, ProcessUsage};
use nix::time::{ClockId, clock_gettime};
use rustix::{
    io::pread,
    param::{clock_ticks_per_second, page_size},
};
use std::{
    fs::{self, File},
    io,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const OWN_DESCRIPTORS: &str = "/proc/self/fd";

/// Reads `/proc/self`.
#[derive(Debug)]
pub(crate) struct ProcStats {
    stat: File,
    started_at: OnceLock<Option<SystemTime>>,
}

impl ProcStats {
    /// # Errors
    /// Errors of the system, such as that no `/proc` is mounted.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { stat: File::open("/proc/self/stat")?, started_at: OnceLock::new() })
    }

    /// Returns when the process started. Computed once, so that a later change of the system's
    /// clock does not move it.
    fn started_at(&self, start_ticks: u64) -> Option<SystemTime> {
        *self.started_at.get_or_init(|| {
            let now = |clock| clock_gettime(clock).ok().map(Duration::from);
            let booted =
                now(ClockId::CLOCK_REALTIME)?.checked_sub(now(ClockId::CLOCK_BOOTTIME)?)?;
            Some(UNIX_EPOCH + booted + ticks(start_ticks))
        })
    }

    fn stat(&self) -> Option<Stat> {
        // Fifty numbers and a name of at most 64 bytes.
        let mut line = [0; 2048];
        let read = pread(&self.stat, &mut line, 0).ok()?;
        Stat::of(std::str::from_utf8(&line[..read]).ok()?)
    }
}

impl ProcessStats for ProcStats {
    fn read(&self) -> Option<ProcessUsage> {
        let stat = self.stat()?;
        Some(ProcessUsage {
            cpu: ticks(stat.cpu_ticks),
            resident_bytes: stat.resident_pages.saturating_mul(page_size() as u64),
            virtual_bytes: stat.virtual_bytes,
            descriptors: descriptors(),
            descriptors_max: descriptors_max().map(|most| most as u64),
            started_at: self.started_at(stat.start_ticks),
        })
    }
}

/// Returns how many descriptors are open. Linux 6.2 and later report it as the size of the
/// directory; earlier versions need a count.
fn descriptors() -> Option<u64> {
    match fs::metadata(OWN_DESCRIPTORS).ok()?.len() {
        // One of them is the descriptor of the directory itself.
        0 => u64::try_from(fs::read_dir(OWN_DESCRIPTORS).ok()?.count()).ok()?.checked_sub(1),
        open => Some(open),
    }
}

/// The fields used of `/proc/self/stat`: see proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn of(line: &str) -> Option<Self> {
        // The second field is a name in parentheses, which may contain blanks and parentheses. The
        // third field follows the last parenthesis.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn ticks(count: u64) -> Duration {
    let ticks_per_second = clock_ticks_per_second().max(1);
    Duration::from_secs(count / ticks_per_second)
        + Duration::from_secs(count % ticks_per_second)
            / u32::try_from(ticks_per_second).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_blanks_and_brackets() {
        let line = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 70 30 13 14 15 16 17 18 1000 4096 25 99 0";
        let stat =
            Stat { cpu_ticks: 100, start_ticks: 1000, virtual_bytes: 4096, resident_pages: 25 };
        assert_eq!(Stat::of(line), Some(stat));
        assert_eq!(Stat::of("42 (cut"), None);
        assert_eq!(Stat::of("42 (short) S 1"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let stats = ProcStats::new().unwrap();
        let usage = stats.read().unwrap();
        assert!(
            usage.resident_bytes > 100_000 && usage.virtual_bytes >= usage.resident_bytes,
            "{usage:?}"
        );
        assert!(usage.started_at.unwrap() > UNIX_EPOCH);
        let before = usage.descriptors.unwrap();
        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let after = stats.read().unwrap().descriptors.unwrap();
        // Other tests of this process open and close descriptors, too.
        assert!(after > before && before > 2, "{before} and {} more are {after}", files.len());
    }

    #[test]
    fn ticks_are_parts_of_a_second() {
        let ticks_per_second = clock_ticks_per_second();
        assert_eq!(ticks(ticks_per_second * 3), Duration::from_secs(3));
        assert_eq!(ticks(ticks_per_second / 2), Duration::from_millis(500));
    }
}
