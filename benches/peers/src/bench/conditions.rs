//! The conditions of the measurement: a number without them means nothing.

use serde_json::{Value, json};
use std::{fs, process::Command, thread};

/// Describes the conditions of this run.
pub fn describe(rounds: usize, seconds: u64, connections: usize) -> Value {
    let here = env!("CARGO_MANIFEST_DIR");
    let changed =
        !said("git", &["-C", here, "status", "--porcelain", "--untracked-files=no"]).is_empty();
    json!({
        "commit": said("git", &["-C", here, "rev-parse", "--short", "HEAD"]),
        "changed": changed,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "processor": processor().unwrap_or_default(),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "rust": said("rustc", &["--version"]),
        "wrk": said("wrk", &["--version"]).split(" Copyright").next().unwrap_or_default(),
        "h2load": said("h2load", &["--version"]),
        "rounds": rounds,
        "seconds": seconds,
        "connections": connections,
    })
}

/// Formats the conditions as prose.
pub fn sentence(run: &Value) -> String {
    let text = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
    let noise = |name: &str| run["noise"][name].as_f64().unwrap_or(0.0);
    format!(
        "Commit {}{}, {} rounds of {} s, {} idle connections, {} cores ({}), Linux {}, {}, {}, {}. \
         Noise: the same 20 ms of arithmetic, timed {} times through the run, took up to {:.0} % \
         more than its median of {:.1} ms (nine of ten at most {:.0} % more); {:.1} % of a core was \
         stolen by the machine below. The run took {:.0} minutes.",
        text("commit"),
        if run["changed"] == true { " and uncommitted changes" } else { "" },
        run["rounds"],
        run["seconds"],
        run["connections"],
        run["cores"],
        text("processor"),
        kernel(run),
        text("rust").split(" (").next().unwrap_or_default(),
        text("wrk").split(" [").next().unwrap_or_default(),
        text("h2load"),
        run["noise"]["spins"],
        noise("slowest_above") * 100.0,
        noise("spin_millis"),
        noise("ninetieth_above") * 100.0,
        noise("stolen") * 100.0,
        noise("seconds") / 60.0,
    )
}

/// Formats the conditions as a short caption.
pub fn caption(run: &Value) -> String {
    let text = |name: &str| run[name].as_str().unwrap_or_default();
    format!(
        "one core for the server, another for its clients · medians of {} rounds · commit {} · \
         Linux {}",
        run["rounds"],
        text("commit"),
        kernel(run)
    )
}

/// Returns the kernel version without the distribution's suffix.
fn kernel(run: &Value) -> &str {
    run["kernel"].as_str().and_then(|kernel| kernel.split('-').next()).unwrap_or_default()
}

/// Returns the first line of the command's output, or an empty string if it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}
