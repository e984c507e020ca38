//! Nothing that `lameduck-check` has started is left when it is ended by a signal.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
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

#[test]
fn the_balancer_ends_with_the_command() {
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
    kill_process(Pid::from_child(&check), Signal::TERM).unwrap();
    assert_eq!(check.wait().unwrap().code(), Some(128 + 15));
    until("the balancer still runs", || !runs(&pid));
    fs::remove_dir_all(&folder).unwrap();
}
