//! The tester is tested: a little server that loses nothing passes everything, and for each
//! scenario a variant of it with one fault fails that scenario.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::print_stderr,
    reason = "a server on plain threads, in real time"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connection;
mod ended;
mod http2;
mod server;
mod stops;
mod tls;
mod under_load;

use lameduck_check::{
    cli::grade_by,
    formats::{Format, format},
    grading::{Report, Verdict},
    scenario::{Need, all},
};
use std::{collections::BTreeSet, process::Command, sync::Mutex, thread};

/// One run of the little server at a time: its faults last milliseconds.
static TURN: Mutex<()> = Mutex::new(());

/// Returns the value of an argument `NAME=VALUE` of this process.
fn value(name: &str) -> Option<String> {
    std::env::args().find_map(|word| word.strip_prefix(name).map(str::to_owned))
}

/// The server: this test binary, started again with its ports and its fault.
#[test]
fn server_role() {
    if let (Some(port), Some(probes)) = (value("port="), value("probes=")) {
        let fault = value("fault=").unwrap_or_default();
        server::run(port.parse().unwrap(), probes.parse().unwrap(), &fault);
    }
}

/// The server that speaks TLS.
#[test]
fn tls_role() {
    if let (Some(port), Some(fault)) = (value("port="), value("fault=")) {
        tls::run(port.parse().unwrap(), &fault);
    }
}

/// A command that starts the server in the background, and ends once it listens.
#[test]
fn daemon_role() {
    if let (Some(port), Some(file)) = (value("port="), value("file=")) {
        ended::run_in_background(port.parse().unwrap(), &file);
    }
}

/// Grades the server that speaks TLS with this fault.
fn graded_over_tls(fault: &str, grace: &str, repeat: &str) -> Report {
    let this = std::env::current_exe().unwrap().display().to_string();
    let check = ["lameduck-check", "run", grace, "--jobs=12", "--tls", repeat, "--"];
    let role = ["--exact", "--nocapture", "tls_role", "port={port}"];
    let fault = format!("fault={fault}");
    grade_by(check.into_iter().chain([this.as_str()]).chain(role).chain([fault.as_str()])).unwrap()
}

#[test]
fn a_server_that_speaks_tls_passes_or_fails_what_it_does_wrong() {
    let good = graded_over_tls("none", "--grace=4s", "--repeat=2");
    let text = format(&good, Format::Human, true);
    assert_eq!(good.exit_code(true), 0, "{text}");
    let is_tls = |name: &str| name.starts_with("tls/");
    for graded in &good.graded {
        let is_skipped = matches!(graded.verdict, Verdict::Skip(_));
        assert_eq!(is_skipped, !is_tls(graded.scenario.name), "{text}");
    }
    for fault in all().map(|scenario| scenario.name).filter(|name| is_tls(name)) {
        let found = failed(&graded_over_tls(fault, "--grace=4s", "--repeat=2"));
        assert_eq!(found, BTreeSet::from([fault]));
    }
}

// A server that sent nothing for nine seconds before it marked a cut body as complete passed: the
// client had given up.
#[test]
fn a_body_that_is_cut_after_a_long_silence_is_read_to_its_end() {
    let found = failed(&graded_over_tls("tls/cut late", "--grace=10s", "--repeat=1"));
    assert_eq!(found, BTreeSet::from(["tls/cut"]));
}

// A server that responds to every path in the same way was taken for one with `--stream`, and
// blamed for a body that it had never cut.
#[test]
fn a_server_that_responds_to_every_path_over_tls_has_no_stream() {
    let report = graded_over_tls("each path is the same", "--grace=4s", "--repeat=1");
    let cut = report.graded.iter().find(|graded| graded.scenario.name == "tls/cut").unwrap();
    assert_eq!(cut.verdict, Verdict::Skip(Need::Stream.missing().to_owned()));
    assert!(failed(&report).is_empty(), "{}", format(&report, Format::Human, true));
}

/// Grades the little server with this fault.
fn graded(fault: &str, options: &[&str]) -> Report {
    try_graded(fault, options).unwrap()
}

fn try_graded(fault: &str, options: &[&str]) -> Result<Report, String> {
    let this = std::env::current_exe().unwrap().display().to_string();
    let check = ["lameduck-check", "run"];
    let has_delay = options.iter().any(|option| option.starts_with("--lame-duck="));
    let delay = (!has_delay).then_some("--lame-duck=170ms");
    let has_grace = options.iter().any(|option| option.starts_with("--grace="));
    let grace = (!has_grace).then_some("--grace=4s");
    let probes =
        ["--ready=http://127.0.0.1:{port2}/", "--live=http://127.0.0.1:{port2}/live", "--"];
    let role = ["--exact", "--nocapture", "server_role", "port={port}", "probes={port2}"];
    let fault = format!("fault={fault}");
    let given = options.iter().copied();
    let arguments = check.into_iter().chain(grace).chain(delay).chain(given).chain(probes);
    grade_by(arguments.chain([this.as_str()]).chain(role).chain([fault.as_str()]))
}

// A server that responds to every path with a large page after a second was taken for one with
// `--slow`, `--stream` and `--big`. It was blamed for responses that it had completed.
#[test]
fn a_server_that_responds_to_every_path_in_the_same_way_has_no_routes() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let only = ["--only=cut/*", "--only=request/stream", "--only=request/slow-reader"];
    let report = graded("each path is the same", &[&only[..], &["--repeat=1"]].concat());
    let text = format(&report, Format::Human, true);
    let is_skipped = |verdict: &Verdict| matches!(verdict, Verdict::Skip(_));
    assert!(report.graded.iter().all(|graded| is_skipped(&graded.verdict)), "{text}");
}

// A server whose `/stream` sends events for ever was probed for ever: no scenario was played.
#[test]
fn a_stream_without_an_end_is_no_route() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = graded("endless stream", &["--only=request/stream", "--repeat=1"]);
    let verdict = Verdict::Skip(Need::Stream.missing().to_owned());
    assert_eq!(report.graded[0].verdict, verdict);
}

// A server whose body of five parts begins with the first one takes 480 of 600 ms, and was blamed.
#[test]
fn a_stream_that_takes_less_than_its_time_is_whole() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = graded("five parts", &["--only=request/stream", "--repeat=1"]);
    assert_eq!(report.graded[0].verdict, Verdict::Pass, "{:?}", report.graded[0].findings.stories);
}

fn failed(report: &Report) -> BTreeSet<&'static str> {
    let failed = |verdict: &Verdict| matches!(verdict, Verdict::Fail | Verdict::Broken(_));
    let failed = report.graded.iter().filter(|graded| failed(&graded.verdict));
    failed.map(|graded| graded.scenario.name).collect()
}

#[test]
fn a_server_that_loses_nothing_passes_everything() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut report = graded("none", &["--repeat=2", "--jobs=12"]);
    // A busy machine delays a client now and then. A fault fails each time.
    for _ in 0..4 {
        let again: Vec<_> = not_passed(&report).flat_map(|name| ["--only", name]).collect();
        if again.is_empty() {
            break;
        }
        report = graded("none", &[&again[..], &["--repeat=2"]].concat());
    }
    let text = format(&report, Format::Human, true);
    assert_eq!((report.exit_code(true), not_passed(&report).next()), (0, None), "{text}");
}

/// Returns the scenarios that failed, or were skipped although every machine can play them.
fn not_passed(report: &Report) -> impl Iterator<Item = &'static str> + '_ {
    let graded = report.graded.iter().filter(|graded| match graded.verdict {
        Verdict::Pass => false,
        Verdict::Skip(_) => {
            let needs = graded.scenario.needs;
            !needs.contains(&Need::PidNamespace) && !needs.contains(&Need::Tls)
        }
        Verdict::Fail | Verdict::Broken(_) => true,
    });
    graded.map(|graded| graded.scenario.name)
}

// A server that still served when the check stopped its load was blamed for the responses that the
// SIGKILL of the check had cut.
#[test]
fn the_kill_at_the_end_of_a_load_loses_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report =
        graded("none", &["--lame-duck=50ms", "--grace=100ms", "--only=load/latency", "--repeat=3"]);
    assert_eq!(report.exit_code(true), 0, "{}", format(&report, Format::Human, true));
}

// A server that responds 404 to everything after SIGTERM lost nothing: every status below 500
// counted as served.
#[test]
fn a_route_that_is_gone_after_the_stop_is_a_loss() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let names = [
        "accept/at-close",
        "accept/backlog",
        "drain/idle-request",
        "lame-duck/kept-connection",
        "lame-duck/new-connection",
        "load/latency",
        "request/first-byte",
        "request/pipelined",
    ];
    let only: Vec<String> = names.iter().map(|name| format!("--only={name}")).collect();
    let mut options: Vec<&str> = only.iter().map(String::as_str).collect();
    options.push("--repeat=2");
    assert_eq!(failed(&graded("404 after the stop", &options)), BTreeSet::from(names));
}

// A server that died of SIGPIPE when it logged its stop passed every scenario of the exit, and so
// did one that had crashed before the stop was requested.
#[test]
fn a_crash_is_no_exit() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let verdict = |fault: &str, only: &str| {
        let report = graded(fault, &[only, "--repeat=1"]);
        (report.graded[0].verdict.clone(), report.graded[0].findings.stories.concat())
    };
    for (fault, only, words) in [
        ("crash at the stop", "--only=exit/silent", "it crashed after the stop"),
        ("crash at the stop", "--only=signal/at-ready", "killed by SIGPIPE"),
        ("crash by EMFILE", "--only=exit/descriptors", "it ended before the stop"),
    ] {
        let (verdict, stories) = verdict(fault, only);
        assert!(verdict == Verdict::Fail && stories.contains(words), "{only}: {stories}");
    }
    let (verdict, _) = verdict("crash by half a head", "--only=exit/silent");
    assert!(matches!(&verdict, Verdict::Broken(why) if why.contains("SIGPIPE")), "{verdict:?}");
}

/// Scenarios that a fault fails besides its own, since they see the same loss.
fn also(fault: &str) -> &'static [&'static str] {
    match fault {
        "accept/backlog" => &["accept/at-close", "lame-duck/new-connection", "load/latency"],
        // It accepts nothing from the stop on, and resets what has arrived when it closes.
        "lame-duck/new-connection unaccepted" => {
            &["accept/at-close", "drain/backlog", "load/latency"]
        }
        // Connections are refused from the stop on, when it has just become not ready.
        "lame-duck/new-connection" => &["ready/fails-first"],
        "ready/fails-first hangs" => &["lame-duck/new-connection", "ready/responds"],
        "lame-duck/kept-connection" => &["lame-duck/announced-close", "request/pipelined"],
        // Its connections are idle, too.
        "exit/idle" => &["exit/descriptors"],
        // A response that is cut, and a close under requests that were sent.
        "request/slow-reader" | "request/pipelined" => &["close/unread-bytes"],
        "request/in-flight" => {
            // `ready/alive` has no slow request during which it could probe.
            &[
                "drain/in-flight",
                "signal/twice",
                "request/half-closed",
                "load/latency",
                "ready/alive",
            ]
        }
        "accept/at-close" => &["drain/backlog", "load/latency", "lame-duck/new-connection"],
        "request/first-byte" => &["load/latency"],
        // These open new connections at the same moments, too.
        "load/latency" => &["accept/at-close", "lame-duck/new-connection"],
        // The probes are gone, whatever they ask.
        "ready/responds" => &["ready/alive"],
        "http2/in-flight" => &["drain/http2"],
        // The body looks complete.
        "request/stream short" => &["cut/stream"],
        // The listener closes at the same moment.
        "drain/backlog" => &["accept/at-close", "load/latency"],
        "drain/idle-request" => &["load/latency", "lame-duck/announced-close"],
        "http2/goaway" | "http2/requests-unread" => &["http2/last-stream-id"],
        _ => &[],
    }
}

/// Other faults that a scenario must see.
const MORE_FAULTS: [&str; 7] = [
    "http2/requests-unread reset",
    "lame-duck/new-connection unaccepted",
    "ready/alive hangs",
    // A server whose liveness took seconds to respond passed.
    "ready/alive slow",
    "ready/fails-first at-close",
    // A server that closed its listener at once passed, if its readiness hung: no connection was
    // opened until its process had ended.
    "ready/fails-first hangs",
    "request/stream short",
];

#[test]
fn each_fault_fails_its_scenario_and_no_other() {
    let may_unshare = Command::new("unshare")
        .args(["--user", "--map-current-user", "--pid", "--fork", "true"])
        .status()
        .is_ok_and(|status| status.success());
    let faults = all().filter(|scenario| !scenario.needs.contains(&Need::Tls));
    let faults = faults.filter(|scenario| {
        let is_tried = may_unshare || !scenario.needs.contains(&Need::PidNamespace);
        if !is_tried {
            eprintln!("NOT TRIED: {}: this user may not create PID namespaces", scenario.name);
        }
        is_tried
    });
    let faults = faults.map(|scenario| scenario.name).chain(MORE_FAULTS);
    let faults = Mutex::new(faults.collect::<Vec<_>>());
    let wrong = Mutex::new(Vec::new());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                loop {
                    let Some(fault) = faults.lock().unwrap().pop() else { return };
                    if let Some(found) = finds_more_or_less_than(fault) {
                        wrong.lock().unwrap().push(format!("{fault} fails {found:?}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns what fails, unless it is the scenario of the fault and no other.
fn finds_more_or_less_than(fault: &str) -> Option<BTreeSet<&'static str>> {
    let scenario = fault.split(' ').next().unwrap();
    let mut found = failed(&graded(fault, &["--repeat=1", "--jobs=6"]));
    if !found.contains(scenario) {
        // A moment that one repetition in a few does not meet.
        found.extend(failed(&graded(fault, &["--only", scenario, "--repeat=8"])));
    }
    let mut others = found.clone();
    others.retain(|name| *name != scenario && !also(fault).contains(name));
    // A busy machine delays a client now and then. A fault fails each time.
    for _ in 0..4 {
        if others.is_empty() {
            break;
        }
        let again = others.iter().flat_map(|other| ["--only", *other]);
        others = failed(&graded(fault, &again.chain(["--repeat=1"]).collect::<Vec<_>>()));
    }
    (!found.contains(scenario) || !others.is_empty()).then_some(found)
}

// Servers that ran at the same time had one readiness: each was taken for ready when another was.
#[test]
fn servers_with_a_fixed_url_run_one_at_a_time() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let probes = free.local_addr().unwrap().port();
    drop(free);
    let this = std::env::current_exe().unwrap().display().to_string();
    let ready = format!("--ready=http://127.0.0.1:{probes}/");
    let check = ["lameduck-check", "run", "--lame-duck=170ms", "--grace=4s", "--repeat=1", &ready];
    let only = ["--only=exit/silent", "--only=exit/idle", "--only=exit/request", "--", &this];
    let probes = format!("probes={probes}");
    let role = ["--exact", "--nocapture", "server_role", "port={port}", &probes];
    let report = grade_by(check.into_iter().chain(only).chain(role)).unwrap();
    assert_eq!(report.exit_code(true), 0, "{}", format(&report, Format::Human, true));
}

// A server that refused unread streams by REFUSED_STREAM was blamed, although its client may repeat
// such requests.
#[test]
fn streams_that_are_refused_unprocessed_are_not_lost() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let options = ["--only=http2/requests-unread", "--repeat=2"];
    let report = graded("http2/requests-unread refused", &options);
    assert_eq!(report.graded[0].verdict, Verdict::Pass, "{:?}", report.graded[0].findings.stories);
}

// A server that logs more than a pipe holds before it listens could not be tried: nothing read its
// log, and "no connection was accepted".
#[test]
fn the_log_of_the_start_is_read() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = graded("loud start", &["--only=log/*", "--repeat=1", "--start=5s"]);
    assert_eq!(report.exit_code(true), 0, "{}", format(&report, Format::Human, true));
}

// A server that reset all connections at the stop passed: its slow response ended before the first
// probe, and nothing was observed.
#[test]
fn a_liveness_that_was_never_seen_does_not_pass() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = graded("reset at the stop", &["--only=ready/alive", "--repeat=1"]);
    let verdict = &report.graded[0].verdict;
    assert!(matches!(verdict, Verdict::Broken(_) | Verdict::Fail), "{verdict:?}");
}

// A server that sends the head of a slow response at once could not be tried: the head was taken
// for the whole response.
#[test]
fn a_slow_response_has_arrived_with_its_last_byte() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (fault, expected) in
        [("slow head first", Verdict::Pass), ("slow head first, not alive", Verdict::Fail)]
    {
        let report = graded(fault, &["--only=ready/alive", "--repeat=1"]);
        assert_eq!(report.graded[0].verdict, expected, "{:?}", report.graded[0].findings.stories);
    }
}

const HELLO: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello world"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello).serve_forever()
"#;

#[test]
fn a_hello_world_in_python_is_graded_by_its_port_alone() {
    let is_there = Command::new("python3").arg("--version").output().is_ok();
    if !is_there {
        assert!(std::env::var("CI").is_err(), "in CI python3 must be there");
        eprintln!("NOT TRIED: python3 is missing");
        return;
    }
    let check =
        ["lameduck-check", "run", "--repeat=1", "--grace=3s", "--jobs=12", "--port-env=PORT", "--"];
    let report = grade_by(check.into_iter().chain(["python3", "-c", HELLO])).unwrap();
    let text = format(&report, Format::Human, false);
    let failed = failed(&report);
    // It has no signal handler, logs from its handlers, and closes after each response.
    for name in ["accept/backlog", "exit/code", "request/half-head", "log/stuck-serves"] {
        assert!(failed.contains(name), "{name}\n{text}");
    }
    for name in ["exit/idle", "exit/silent", "port/rebind", "port/in-use", "log/stuck-exits"] {
        let graded = report.graded.iter().find(|graded| graded.scenario.name == name).unwrap();
        assert_eq!(graded.verdict, Verdict::Pass, "{name}\n{text}");
    }
    assert!(!failed.contains("http2/goaway") && !failed.contains("cut/stream"), "{text}");
}
