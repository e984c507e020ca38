//! `deploy/systemd` fits the plan, and systemd accepts it.

use super::is_installed;
use crate::support::{repository, run_to_end, scratch_path, service::command};
use lameduck::{
    Settings, cli,
    lifecycle::{Plan, WATCHDOG_SLACK},
};
use std::{fs, process::Command, time::Duration};

fn unit(name: &str) -> String {
    fs::read_to_string(repository("deploy/systemd").join(name)).unwrap()
}

/// Returns the last value of a key.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    unit.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect(key)
}

fn span(unit: &str, key: &str) -> Duration {
    lameduck::parse_duration(value(unit, key)).unwrap()
}

#[test]
fn the_timeouts_of_the_unit_fit_the_plan() {
    let service = unit("lameduck.service");
    let words = value(&service, "ExecStart").split_whitespace();
    let (own, words): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("--log-format"));
    let plan = run_to_end(command().args(own).args(&words[1..]).arg("--print-plan"));
    assert_eq!(plan.code, Some(0), "{plan:?}");
    let flags = clap::Command::new("lameduck").args(cli::flags());
    let matches = flags.clone().get_matches_from(words);
    let settings = cli::settings(Settings::default(), &flags, &matches).unwrap();
    settings.check().unwrap();
    let stop = span(&service, "TimeoutStopSec");
    assert_eq!(
        settings.grace_period, stop,
        "the plan is refused if it is longer than systemd waits"
    );
    for plan in [Plan::default(), settings.plan] {
        assert!(plan.worst_case() + WATCHDOG_SLACK < stop, "{plan:?}");
    }
    assert!(
        settings.plan.start < span(&service, "TimeoutStartSec"),
        "the one who knows more speaks first"
    );
    // A worker that misses two ticks of 2.5 s is wedged. The timeout of the manager is added to
    // that.
    assert!(span(&service, "WatchdogSec") >= Duration::from_secs(5));
    assert_eq!(value(&service, "Type"), "notify");
    assert!(
        value(&service, "RestrictAddressFamilies").contains("AF_NETLINK"),
        "a slow reader is judged by it"
    );
}

#[test]
fn systemd_accepts_the_units() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let directory = scratch_path("units");
    fs::create_dir_all(&directory).unwrap();
    // The tool looks for the program, which is not installed here.
    let service =
        unit("lameduck.service").replace("/usr/bin/lameduck", env!("CARGO_BIN_EXE_lameduck"));
    fs::write(directory.join("lameduck.service"), service).unwrap();
    fs::write(directory.join("lameduck.socket"), unit("lameduck.socket")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    let verified = verify
        .args(["lameduck.service", "lameduck.socket"].map(|name| directory.join(name)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("lameduck."), "{said}");
    fs::remove_dir_all(&directory).unwrap();
}

/// The unit for two processes with `--reuse-port` had no capability to seal a shared port. At each
/// restart some connections were reset (P5a).
#[test]
fn the_unit_that_shares_its_port_may_seal_it() {
    let page = fs::read_to_string(repository("docs/restarts.md")).unwrap();
    let of_page = page.split("```ini").find(|part| part.contains("--reuse-port --")).unwrap();
    let instance = of_page.split("```").next().unwrap();
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(value(instance, key), "CAP_NET_ADMIN");
    }
}
