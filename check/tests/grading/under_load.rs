//! The counts of `soak` and `rollout`: what the check itself cuts is no loss, and nothing that was
//! counted is missing after an error.

use std::process::{Command, Stdio};

/// Runs a command under load, in which the server starts this number of times; after that it exits
/// with 3. Returns the exit code, the output and the error. The check examines the first process,
/// and the load begins with the second. Each knows its number from `START`.
fn under_load(starts: u32, fault: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    under_load_by("exec \"$@\"", starts, fault, arguments)
}

/// The same, with the server started by this end of a shell script.
fn under_load_by(
    shell: &str,
    starts: u32,
    fault: &str,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let name = format!("lameduck-starts-{}-{starts}-{fault}-{}", std::process::id(), shell.len());
    let file = std::env::temp_dir().join(name.replace([' ', '/'], "-"));
    let script = format!(
        "echo >> \"$0\"; export START=$(wc -l < \"$0\")
        [ $START -le {starts} ] || exit 3; {shell}"
    );
    let check = Command::new(env!("CARGO_BIN_EXE_lameduck-check"))
        .args(arguments)
        .args(["--ready=http://127.0.0.1:{port2}/", "--", "sh", "-c", &script])
        .args([&file, &std::env::current_exe().unwrap()])
        .args(["--exact", "--nocapture", "server_role", "port={port}", "probes={port2}"])
        .arg(format!("fault={fault}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (check.status.code(), text(&check.stdout), text(&check.stderr))
}

const SOAK: [&str; 4] = ["soak", "--restarts=5", "--clients=8", "--every=100ms"];

// A soak that had lost requests in hundreds of restarts printed nothing of them: the last successor
// had not started.
#[test]
fn a_soak_whose_successor_does_not_start_prints_its_counts() {
    let (code, counts, error) = under_load(3, "none", &SOAK);
    assert!(counts.starts_with("1 restarts: ") && counts.contains(" responses, "), "{counts}");
    assert!(code == Some(2) && error.contains("exit code 3"), "{error}");
}

// A server that served without a fault was blamed for what SIGKILL had cut: after an error of the
// hand-over the check killed it under the load.
#[test]
fn a_server_that_serves_after_an_error_of_the_hand_over_has_lost_nothing() {
    let request = "--stop=http:POST:http://127.0.0.1:{port2}/nope";
    let command = "--stop=cmd:sleep 0.2; exit 4 # {pid}";
    for (starts, hand_over, stop, words) in [
        (2, "--hand-over=reuse-port", "--stop=TERM", "exit code 3"),
        (9, "--hand-over=restart", request, "the stop request: 404"),
        // Both processes serve when the command fails.
        (9, "--hand-over=reuse-port", command, "the stop command: exit code 4"),
    ] {
        let arguments = [&SOAK[..], &[hand_over, stop]].concat();
        let (code, counts, error) = under_load(starts, "shared port", &arguments);
        assert!(code == Some(2) && error.contains(words), "{error}");
        assert!(counts.starts_with("0 restarts: "), "{counts}");
        assert!(!counts.starts_with("0 restarts: 0 responses"), "{counts}");
        for none in [" 0 lost, ", " 0 close races", " 0 connections refused"] {
            assert!(counts.contains(none), "{arguments:?}: {counts}");
        }
    }
}

// A successor that served without a fault was blamed for what SIGKILL had cut: it did not become
// ready in time, and the check killed it under the load.
#[test]
fn a_successor_that_serves_and_is_not_ready_has_lost_nothing() {
    for hand_over in ["--hand-over=restart", "--hand-over=reuse-port"] {
        let arguments = [&SOAK[..], &[hand_over, "--start=1s"]].concat();
        let (code, counts, error) = under_load(9, "not ready after 2", &arguments);
        assert!(code == Some(2) && error.contains("not ready after 1s"), "{error}");
        for some in ["0 restarts: ", " 0 lost, ", " 0 close races"] {
            assert!(counts.contains(some), "{hand_over}: {counts}");
        }
    }
}

// A server that hung at its stop until SIGKILL had lost nothing: the requests on kept connections
// were close races.
#[test]
fn a_request_that_hangs_until_the_kill_is_lost() {
    let arguments = ["soak", "--restarts=1", "--clients=4", "--every=100ms", "--grace=1s"];
    let (code, counts, error) = under_load(9, "hangs at the stop", &arguments);
    assert_eq!(code, Some(1), "{counts}{error}");
    assert!(counts.contains(" 0 close races") && !counts.contains(" 0 lost, "), "{counts}");
    assert!(counts.contains("; 1 exits were not clean\nno exit in time"), "{counts}");
}

// The same server had lost nothing behind a shell that exited before it.
#[test]
fn a_request_that_a_child_hangs_on_until_the_kill_is_lost() {
    let shell = "trap 'kill $!; sleep 0.5; exit 0' TERM; \"$@\" & wait";
    let arguments = ["soak", "--restarts=1", "--clients=4", "--every=100ms"];
    let (code, counts, error) = under_load_by(shell, 9, "hangs at the stop", &arguments);
    assert_eq!(code, Some(1), "{counts}{error}");
    assert!(counts.contains(" 0 close races") && !counts.contains(" 0 lost, "), "{counts}");
    assert!(counts.contains("; 0 exits were not clean"), "{counts}");
}

// A request that crossed the close of its connection was lost, and no close race, if the server had
// left a process behind: the kill of that came before the client had seen the close.
#[test]
fn a_request_that_crosses_a_close_is_no_victim_of_a_later_kill() {
    let shell =
        "\"$@\" & server=$!; sleep 60 & trap 'kill -9 $server; wait $server; exit 0' TERM; wait";
    let arguments = ["soak", "--restarts=1", "--clients=4", "--every=100ms", "--latency=50ms"];
    let (_, counts, error) = under_load_by(shell, 9, "none", &arguments);
    assert!(counts.starts_with("1 restarts: "), "{counts}{error}");
    assert!(!counts.contains(" 0 close races"), "{counts}{error}");
}

// A server that had crashed before its stop was nowhere in the report either, if the stop was a
// request: nothing accepted it. One that had ended by itself with 0 was clean, also if the stop was
// a signal.
#[test]
fn an_exit_before_the_stop_is_reported() {
    let request = "--stop=http:POST:http://127.0.0.1:{port2}/stop";
    for (code, stop) in [(7, request), (0, request), (0, "--stop=TERM")] {
        let shell = format!("\"$@\" & sleep 2; kill -9 $!; exit {code}");
        let arguments = ["soak", "--restarts=1", "--clients=4", "--every=3s", stop];
        let (_, counts, error) = under_load_by(&shell, 9, "none", &arguments);
        let words = "; 1 exits were not clean\nthe command ended without a stop request: exit code";
        assert!(counts.contains(&format!("{words} {code}; ")), "{counts}{error}");
    }
}

// A server that had crashed at its stop was nowhere in the report: its successor had not started.
#[test]
fn an_exit_that_is_not_clean_is_reported_also_before_an_error() {
    let (code, counts, error) = under_load(2, "exit/code", &SOAK);
    assert!(code == Some(2) && error.contains("exit code 3"), "{error}");
    assert!(counts.contains("; 1 exits were not clean\nexit code 7; "), "{counts}");
    let Some((row, counts, error)) = rolled_out("haproxy", 4, "exit/code", "--stop=TERM") else {
        return;
    };
    assert!(error.starts_with("error: haproxy: ") && error.contains("exit code 3"), "{error}");
    assert!(row[1] == "0" && row[2] != "0" && row[5] == "1", "{counts}");
    assert!(counts.contains("\nexit code 7; "), "{counts}");
}

// A server behind a balancer was killed under the load, too, and there were no counts.
#[test]
fn a_rollout_whose_stop_fails_has_lost_nothing() {
    let stop = "--stop=http:POST:http://127.0.0.1:{port2}/nope";
    let Some((row, counts, error)) = rolled_out("haproxy", 9, "none", stop) else { return };
    assert!(error.contains("the stop request: 404"), "{error}");
    assert!(row[2] != "0" && row[3] == "0" && row[5] == "0", "{counts}");
}

// A rollout whose successor served and was not ready in time counted as failed what the kill had
// cut. nginx does not probe: a second after a failed connect it tries the successor again.
#[test]
fn a_rollout_whose_successor_serves_and_is_not_ready_has_lost_nothing() {
    let rolled = rolled_out("nginx", 9, "not ready after 4", "--start=3s");
    let Some((row, counts, error)) = rolled else { return };
    assert!(error.contains("not ready after 3s"), "{error}");
    assert!(row[2] != "0" && row[3] == "0" && row[5] == "0", "{counts}");
}

/// Rolls the server out behind this balancer, as [`under_load`] does, until an error. Returns the
/// row of the table, the output and the error. Returns `None` if the balancer is not installed.
fn rolled_out(
    balancer: &str,
    starts: u32,
    fault: &str,
    argument: &str,
) -> Option<(Vec<String>, String, String)> {
    if Command::new(balancer).arg("-v").output().is_err() {
        assert!(std::env::var("CI").is_err(), "in CI {balancer} must be there");
        eprintln!("NOT TRIED: {balancer} is missing");
        return None;
    }
    let arguments = ["rollout", &format!("--behind={balancer}"), argument];
    let (code, counts, error) = under_load(starts, fault, &arguments);
    assert_eq!(code, Some(2), "{counts}{error}");
    let row = counts.lines().find(|line| line.starts_with(balancer)).unwrap_or_default();
    let row: Vec<String> = row.split_whitespace().map(str::to_owned).collect();
    assert_eq!(row.len(), 6, "{counts}{error}");
    Some((row, counts, error))
}
