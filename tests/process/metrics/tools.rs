//! Independent parsers: promtool, and an OpenMetrics parser.
//!
//! In CI they must be installed; `.ci/run` does that. Elsewhere a test without them prints that,
//! and checks what it can.

#![expect(clippy::unwrap_used, reason = "a tool that cannot be run should fail the test")]

use lameduck::os::stdio::write_stderr_line;
use std::{
    io::{ErrorKind, Write},
    process::{Command, Stdio},
};

/// Runs promtool with these arguments and this input. Returns false if it is not installed.
#[track_caller]
pub(crate) fn promtool(words: &[&str], input: &str) -> bool {
    run(Command::new("promtool").args(words), input, "Debian's package prometheus")
}

/// Parses an OpenMetrics page with the parser of Prometheus's own client library. Returns false if
/// it is not installed.
#[track_caller]
pub(crate) fn openmetrics_parser(page: &str) -> bool {
    let is_there = Command::new("python3")
        .args(["-c", "import prometheus_client"])
        .stderr(Stdio::null())
        .status();
    if !is_there.is_ok_and(|status| status.success()) {
        return missing("the Python package prometheus-client", "PyPI");
    }
    let program = "import sys; from prometheus_client.openmetrics import parser; \
                   read = parser.text_string_to_metric_families; \
                   assert len(list(read(sys.stdin.read()))) > 20";
    run(Command::new("python3").args(["-c", program]), page, "PyPI")
}

#[track_caller]
fn run(command: &mut Command, input: &str, source: &str) -> bool {
    let root = crate::support::repository("");
    let spawned = command
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return missing(&command.get_program().to_string_lossy(), source);
        }
        Err(error) => panic!("{error}"),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}\n{input}", String::from_utf8_lossy(&said));
    true
}

#[track_caller]
fn missing(tool: &str, source: &str) -> bool {
    assert!(
        std::env::var_os("CI").is_none(),
        "CI needs {tool}, from {source}: .ci/run installs it"
    );
    write_stderr_line(&format!(
        "note: {tool} is not here ({source} has it), so this test checks less than it could"
    ));
    false
}
