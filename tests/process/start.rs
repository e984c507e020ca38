//! P14: a failed start is loud. The settings: flags override the environment, which overrides the
//! defaults.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod in_code;

use crate::support::{
    Service, run_to_end,
    service::{ANYWHERE, Ended, command},
};
use in_code::refusal;
use lameduck::{Host, Settings, runtime::ListenAddress};
use rustix::process::Signal;
use std::{net::TcpListener, process::Command, time::Duration};

fn refused(flags: &[&str], variables: &[(&str, &str)]) -> Ended {
    run_to_end(command().args(flags).envs(variables.iter().copied()))
}

#[track_caller]
fn assert_one_line(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
}

#[test]
fn a_port_in_use_ends_the_start_at_once_and_names_setting_value_and_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "--addr=127.0.0.1:0";
    let main = refused(&["--addr", &address, "--internal-addr=127.0.0.1:0"], &[]);
    assert_one_line(&main, 1, &[&address, "--addr", "APP_ADDR", "main", "in use"]);
    let internal = refused(&[free, "--internal-addr", &address], &[]);
    assert_one_line(
        &internal,
        1,
        &[&address, "--internal-addr", "INTERNAL_ADDR", "internal", "in use"],
    );
    let by_variable = refused(&[free], &[("INTERNAL_ADDR", &address)]);
    assert_one_line(&by_variable, 1, &[&address, "in use"]);
}

#[test]
fn one_address_for_both_servers_is_refused() {
    let service = Service::start(&[]);
    let free = service.main.to_string();
    drop(service);
    let both = refused(&["--addr", &free, "--internal-addr", &free], &[]);
    assert_one_line(&both, 1, &[&free, "in use"]);
}

#[test]
fn a_second_instance_is_refused_while_the_first_serves_on() {
    let first = Service::start(&[]);
    let (main, internal) = (first.main.to_string(), first.internal.to_string());
    assert_one_line(
        &refused(&["--addr", &main, "--internal-addr=127.0.0.1:0"], &[]),
        1,
        &[&main, "in use"],
    );
    assert_one_line(
        &refused(&["--addr=127.0.0.1:0", "--internal-addr", &internal], &[]),
        1,
        &[&internal, "in use"],
    );
    for _ in 0..20 {
        assert_eq!(first.get("/").status, 200, "no connection went astray");
    }
}

#[test]
fn two_instances_with_reuse_port_share_it_and_one_takes_over_from_the_other() {
    let mut first = Service::start(&["--reuse-port", "--lame-duck=0s", "--app-version=first"]);
    let address = first.main.to_string();
    let second = Service::watch(
        command()
            .args(ANYWHERE)
            .args(["--reuse-port", "--app-version=second"])
            .env("APP_ADDR", "127.0.0.1:1")
            .args(["--addr", &address]),
    );
    second.wait_for_phase("serving");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), 0);
    for _ in 0..20 {
        assert_eq!(crate::support::get(first.main, "/").header("app-version"), Some("second"));
    }
}

#[test]
fn a_bad_value_exits_with_2_and_names_setting_and_value() {
    for (flag, words) in [
        ("--drain=nonsense", ["--drain", "nonsense"]),
        ("--drain=5", ["--drain", "unit"]),
        ("--cancel=-1s", ["--cancel", "-1s"]),
        ("--lame-duck=25h", ["--lame-duck", "24h"]),
        ("--port=70000", ["--port", "70000"]),
        ("--addr=localhost", ["--addr", "localhost"]),
        ("--addr=unix:", ["--addr", "path"]),
        // This created a file of that name.
        ("--addr=unix:@app", ["--addr=unix:@app:", "abstract"]),
        ("--internal-addr=unix:@app", ["--internal-addr=unix:@app:", "abstract"]),
        ("--unix-mode=rw", ["--unix-mode=rw:", "octal"]),
        ("--unix-mode=1777", ["--unix-mode=1777:", "777"]),
        ("--workers=0", ["--workers", "0"]),
        ("--connections-max=none", ["--connections-max", "none"]),
        ("--header-timeout=0s", ["--header-timeout", "0s"]),
        ("--backlog=0", ["--backlog", "1000000"]),
        ("--tcp-nodelay=yes", ["--tcp-nodelay", "on or off"]),
        ("--tcp-keepalive=10ms", ["--tcp-keepalive", "1s"]),
        // Linux refused it at the first bind, and the error named an address.
        ("--tcp-keepalive=10h", ["--tcp-keepalive", "32767s"]),
        ("--app-version=a\nb", ["--app-version=a\\nb:", "visible"]),
        ("--grace-period=3s", ["--grace-period", "3s"]),
    ] {
        assert_eq!(refused(&[flag], &[]).code, Some(2), "{flag}");
        let ended = refused(&[flag], &[]);
        for word in words {
            assert!(ended.stderr.contains(word), "{flag}: {}", ended.stderr);
        }
    }
    assert_one_line(&refused(&[], &[("SHUTDOWN_DRAIN", "soon")]), 2, &["SHUTDOWN_DRAIN", "soon"]);
    // The wrong part is empty, so the line did not show the value.
    let ended = refused(&[], &[("APP_ADDR", "127.0.0.1:1,")]);
    assert_one_line(&ended, 2, &["APP_ADDR=127.0.0.1:1,:", "number 2 of 2"]);
    assert_one_line(
        &refused(&["--grace-period=3s"], &[]),
        2,
        &["24s", "3s", "--grace-period", "--lame-duck"],
    );
}

#[test]
fn variables_that_kubernetes_injects_are_explained() {
    let ended = refused(&[], &[("APP_PORT", "tcp://10.0.0.1:80")]);
    assert_one_line(
        &ended,
        2,
        &["APP_PORT", "tcp://10.0.0.1:80", "Kubernetes", "enableServiceLinks", "APP_ADDR"],
    );
    let internal = refused(&[], &[("INTERNAL_PORT", "tcp://10.0.0.1:80")]);
    assert_one_line(&internal, 2, &["INTERNAL_PORT", "INTERNAL_ADDR"]);
    // An address has priority over a port of the same source, even over an invalid one.
    let mut service = Service::watch(command().args(ANYWHERE).env("APP_PORT", "tcp://10.0.0.1:80"));
    assert!(service.is_running());
}

#[test]
fn a_value_that_is_not_utf8_is_refused_and_not_ignored() {
    // A variable with bytes that are not UTF-8 was treated as unset, and the default served
    // instead. It must be refused (P14).
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    for name in ["APP_PORT", "APP_ADDR", "SHUTDOWN_DRAIN", "APP_VERSION", "RUST_LOG"] {
        let mut command = command();
        command.args(["--internal-addr=127.0.0.1:0"]).env("APP_ADDR", "127.0.0.1:0");
        if name == "APP_PORT" {
            command.env_remove("APP_ADDR");
        }
        command.env(name, OsStr::from_bytes(b"unix:/tmp/\xff"));
        assert_one_line(&run_to_end(&mut command), 2, &[name]);
    }
}

#[test]
fn a_flag_overrides_a_variable_and_an_empty_variable_is_unset() {
    let variables = [
        ("SHUTDOWN_DRAIN", "7s"),
        ("SHUTDOWN_CANCEL", ""),
        ("SHUTDOWN_LAME_DUCK", "2s"),
        ("APP_VERSION", "1.2.3"),
    ];
    let service = Service::watch(command().args(ANYWHERE).arg("--lame-duck=1s").envs(variables));
    let status = service.status();
    let plan = &status["plan"];
    assert_eq!(
        (&plan["lame_duck_ms"], &plan["drain_ms"]),
        (&1000.into(), &7000.into()),
        "flag, variable"
    );
    assert_eq!(
        (&plan["cancel_ms"], &plan["cleanup_ms"]),
        (&3000.into(), &5000.into()),
        "empty, unset"
    );
    assert_eq!(status["app_version"], "1.2.3");
    service.wait_for_phase("serving");
    assert_eq!(service.get("/").header("app-version"), Some("1.2.3"));
}

#[test]
fn an_abstract_socket_is_refused_from_every_source() {
    let ended = refused(&[], &[("APP_ADDR", "127.0.0.1:0,unix:@app")]);
    assert_one_line(&ended, 2, &["APP_ADDR", "number 2 of 2", "abstract", "./@name"]);
    for name in ["@app", "\0app"] {
        let said = refusal(Host::builder(
            Settings::default().main_address(ListenAddress::Unix(name.into())),
        ));
        assert!(said.starts_with("main_addresses=unix:") && said.contains("abstract"), "{said}");
    }
    let mut settings = Settings::default();
    settings.unix_mode = Some(0o1777);
    assert!(refusal(Host::builder(settings)).starts_with("unix_mode=1777: must be at most 777"));
}

#[test]
fn the_mode_of_a_unix_socket_is_a_setting() {
    use std::os::unix::fs::PermissionsExt;
    let path = crate::support::scratch_path("mode.sock");
    let mut service = Service::start(&[
        &format!("--addr=unix:{}", path.display()),
        "--unix-mode=620",
        "--lame-duck=0s",
    ]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o620);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn help_version_and_plan_are_printed_and_an_unknown_flag_is_bad_usage() {
    let help = refused(&["--help"], &[]);
    assert_eq!(help.code, Some(0));
    for setting in lameduck::SETTINGS {
        assert!(
            help.stdout.contains(setting.flag) && help.stdout.contains(setting.variable),
            "no {} in --help",
            setting.flag
        );
    }
    let version = refused(&["--version"], &[]);
    assert_eq!((version.code, version.stdout.contains(env!("CARGO_PKG_VERSION"))), (Some(0), true));
    let plan = refused(&["--print-plan", "--drain=7s"], &[]);
    assert_eq!(plan.code, Some(0));
    for words in [
        "lame duck",
        "drain",
        "cancel",
        "clean up",
        "internal close",
        "worst case      21s",
        "grace period    30s",
    ] {
        assert!(plan.stdout.contains(words), "no {words:?} in {}", plan.stdout);
    }
    // Streams end during the drain, and what follows waits for the longer of both.
    let plan = refused(&["--print-plan", "--streams=14s"], &[]);
    let rows = |name: &str| {
        let row = plan.stdout.lines().find(|line| line.starts_with(name));
        row.map(|row| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(rows("drain")[1..3], ["5s", "15s"]);
    assert_eq!(rows("streams")[1..3], ["5s", "19s"]);
    assert_eq!(rows("cancel")[1..3], ["19s", "22s"]);
    assert!(plan.stdout.contains("worst case      28s"), "{}", plan.stdout);
    assert_one_line(
        &refused(&["--streams=17s"], &[]),
        2,
        &["31s", "--streams", "SHUTDOWN_STREAMS"],
    );
    assert_eq!(
        refused(&["--print-plan", "--drain=70s"], &[]).code,
        Some(2),
        "a bad plan is refused here too"
    );
    // Bad usage took six lines on standard error, and log collectors made six events of them.
    assert_one_line(&refused(&["--nonsense"], &[]), 2, &["error: ", "--nonsense", "see --help"]);
    let format = refused(&["--log-format=xml"], &[]);
    assert_one_line(&format, 2, &["--log-format", "xml", "human, json", "see --help"]);
    assert_eq!(refused(&["--log-level=a=b=c"], &[]).code, Some(2));
    // This was taken for the name of a module. No line was logged, not even the report.
    assert_one_line(
        &refused(&["--log-level=inof"], &[]),
        2,
        &["--log-level=inof", "info", "debug"],
    );
    assert_one_line(&refused(&[], &[("RUST_LOG", "inof")]), 2, &["RUST_LOG=inof", "info"]);
    assert_one_line(&refused(&[], &[("RUST_LOG", "info\n")]), 2, &["RUST_LOG=info", "debug"]);
}

/// An empty `--log-level`, as of a shell variable that is not set, left a log of errors alone: no
/// phase and no report. `RUST_LOG=,` did the same, and `RUST_LOG=inof,` left nothing at all.
#[test]
fn a_log_filter_without_a_directive_is_refused() {
    for filter in ["", ",", " , ", "inof,"] {
        let setting = format!("--log-level={filter}");
        assert_one_line(&refused(&[&setting], &[]), 2, &[&setting, "info", "debug"]);
    }
    assert_one_line(&refused(&[], &[("RUST_LOG", ",")]), 2, &["RUST_LOG=,:", "info"]);
}

#[test]
fn the_first_line_and_the_status_have_the_addresses_and_the_worst_case() {
    let service = Service::start(&["--addr=127.0.0.1:0", "--lame-duck=1s"]);
    let first = service.lines().remove(0);
    assert_eq!(first["message"], "bound");
    assert_eq!(first["worst_case"], "20s");
    let addresses = &service.status()["addresses"];
    assert_eq!(addresses["internal"], first["internal"]);
    let main: Vec<&str> = addresses["main"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|address| address.as_str())
        .collect();
    assert_eq!(main.len(), 2, "--addr may be repeated");
    for address in main {
        assert_eq!(crate::support::get(address.parse().unwrap(), "/").body(), "hello world");
    }
}

#[test]
fn a_leftover_unix_socket_is_replaced_and_one_in_use_refused() {
    use std::{io::Read, io::Write, os::unix::net::UnixStream};
    let path = crate::support::scratch_path("main.sock");
    let flag = format!("--addr=unix:{}", path.display());
    let run = || {
        let flags =
            [flag.as_str(), "--internal-addr=127.0.0.1:0", "--log-format=json", "--lame-duck=0s"];
        let service = Service::watch(command().args(flags));
        service.wait_for_phase("serving");
        service
    };
    let ask = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let killed = run();
    assert!(ask().ends_with("hello world"));
    assert_one_line(
        &refused(&[&flag, "--internal-addr=127.0.0.1:0"], &[]),
        1,
        &["unix:", "in use"],
    );
    assert!(ask().ends_with("hello world"), "the first one serves on");
    drop(killed);
    assert!(path.exists(), "what was killed leaves its path behind");
    let mut second = run();
    assert!(ask().ends_with("hello world"));
    second.signal(Signal::TERM);
    assert_eq!(second.exit_code(), 0);
    assert!(!path.exists(), "what stops takes its path with it");
}

#[test]
fn a_connection_limit_beyond_the_descriptor_limit_is_refused() {
    let mut shell = Command::new("sh");
    let script = "ulimit -n 100; exec \"$0\" --addr=127.0.0.1:0 --internal-addr=127.0.0.1:0 \
                  --connections-max=5000";
    shell
        .args(["-c", script])
        .arg(env!("CARGO_BIN_EXE_lameduck"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    assert_one_line(&run_to_end(&mut shell), 1, &["--connections-max", "5000", "100", "ulimit"]);
}

/// The workers of one instance share its port with `SO_REUSEPORT`. A second instance that set it
/// could therefore bind, although the first had not agreed to share. Half of the connections
/// silently went to it. It must be refused (P14).
#[test]
fn a_second_instance_cannot_share_the_port_of_an_exclusive_one() {
    let first = Service::start(&[]);
    let address = first.main.to_string();
    let second =
        refused(&["--addr", &address, "--internal-addr", "127.0.0.1:0", "--reuse-port"], &[]);
    assert_one_line(&second, 1, &[&address, "in use"]);
}
