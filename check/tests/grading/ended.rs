//! Nothing that `lameduck-check` has started is left when it ends.

use lameduck_check::cli::grade_by;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Waits until this holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether this process runs. A zombie, which its parent has not yet waited for, does not.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// The command sometimes had the exit code of a failure: it saw that its balancer had ended before
/// the thread that had killed it had ended the process.
#[test]
fn the_balancer_ends_with_the_command() {
    the_balancer_ends_with(Signal::TERM);
    // After SIGHUP, as of a lost terminal, it went on. Under nohup it still does.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    if status
        .lines()
        .any(|line| line.starts_with("SigIgn:") && line.ends_with(['0', '2', '4', '6']))
    {
        the_balancer_ends_with(Signal::HUP);
    }
}

fn the_balancer_ends_with(signal: Signal) {
    let folder = std::env::temp_dir().join(format!("lameduck-ended-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    // It stands for HAProxy: it never listens, and ignores SIGTERM.
    let (program, file) = (folder.join("haproxy"), folder.join("pid"));
    let script = "#!/bin/sh\ntrap '' TERM\necho $$ > \"${0%/*}/new\"\n\
                  mv \"${0%/*}/new\" \"${0%/*}/pid\"\nexec sleep 60\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_lameduck-check"))
        .env("PATH", format!("{}:{path}", folder.display()))
        .args(["rollout", "--behind=haproxy", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "server_role", "port={port}", "probes={port2}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the balancer was not started", || Path::new(&file).exists());
    let pid = fs::read_to_string(&file).unwrap();
    assert!(runs(&pid));
    kill_process(Pid::from_child(&check), signal).unwrap();
    assert_eq!(check.wait().unwrap().code(), Some(128 + signal.as_raw()));
    until("the balancer still runs", || !runs(&pid));
    fs::remove_dir_all(&folder).unwrap();
}

// A rollout that had taken an hour behind HAProxy printed nothing of it: nginx was not installed.
#[test]
fn a_balancer_that_is_missing_is_noticed_before_the_first_rollout() {
    let folder = std::env::temp_dir().join(format!("lameduck-missing-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("haproxy"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.join("haproxy"), fs::Permissions::from_mode(0o755)).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_lameduck-check"))
        .env("PATH", &folder)
        .args(["rollout", "--", "/no/such/program", "{port}"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(2) && error.contains("nginx is not installed"), "{error}");
    fs::remove_dir_all(&folder).unwrap();
}

/// Starts the server in a new process group, writes its id into a file, and ends once it listens.
pub(crate) fn run_in_background(port: u16, file: &str) -> ! {
    let mut server = Command::new(std::env::current_exe().unwrap());
    let role = ["--exact", "--nocapture", "server_role", "probes=0"];
    server.args(role).arg(format!("port={port}")).process_group(0);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let id = server.spawn().unwrap().id().to_string();
    fs::write(format!("{file}.new"), id).unwrap();
    fs::rename(format!("{file}.new"), file).unwrap();
    until("the server does not listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    // The check has time to find that it is ready.
    thread::sleep(Duration::from_millis(300));
    std::process::exit(0);
}

// The check signalled the command, which had ended, and saw it exit at once with 0: `exit/code`,
// `exit/idle` and `exit/silent` passed. The servers themselves got no signal, and were still there
// after the check.
#[test]
fn a_server_in_the_background_is_refused_and_does_not_survive_the_check() {
    let file = std::env::temp_dir().join(format!("lameduck-daemon-{}", std::process::id()));
    let check = Command::new(env!("CARGO_BIN_EXE_lameduck-check"))
        .args(["run", "--only=exit/code", "--repeat=1", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "daemon_role", "port={port}"])
        .arg(format!("file={}", file.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(2), "{error}");
    assert!(error.contains("exit code 0") && error.contains("foreground"), "{error}");
    assert!(!runs(&fs::read_to_string(&file).unwrap()), "it still runs");
    fs::remove_file(&file).unwrap();
}

// A server whose last responses never ended was read for ever: the check did not end.
#[test]
fn a_response_without_an_end_ends_with_the_grace_period() {
    let report =
        crate::graded("endless page", &["--grace=1s", "--repeat=1", "--only=accept/at-close"]);
    assert_eq!(crate::failed(&report).len(), 1, "{:?}", report.graded[0].findings);
    assert!(report.took < Duration::from_secs(40), "{:?}", report.took);
}

// A server behind a shell that exits at SIGTERM passed: the shell left it behind, and it served on.
// In a container it is killed at that moment.
#[test]
fn what_the_command_leaves_behind_at_its_exit_is_cut() {
    let _turn = crate::TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let this = std::env::current_exe().unwrap().display().to_string();
    let check = ["lameduck-check", "run", "--grace=4s", "--repeat=1", "--only=request/in-flight"];
    let shell = ["--", "sh", "-c", "trap 'exit 0' TERM; \"$@\" & wait", "sh", &this];
    let role = ["--exact", "--nocapture", "server_role", "port={port}", "probes={port2}"];
    let report = grade_by(check.into_iter().chain(shell).chain(role)).unwrap();
    assert_eq!(crate::failed(&report).len(), 1, "{:?}", report.graded[0].findings);
}
