//! `lameduck-check`, which works on any server, finds no fault in this host's shutdown.

use lameduck_check::{
    cli::grade_by,
    formats::{Format, format},
    grading::{Report, Verdict},
};

fn grade(only: &[&str]) -> Report {
    let check = [
        "lameduck-check",
        "run",
        "--strict",
        "--repeat=1",
        "--grace=15s",
        "--lame-duck=700ms",
        "--live=http://127.0.0.1:{port2}/liveness",
        "--ready=http://127.0.0.1:{port2}/readiness",
        "--ws=/upgrade",
    ];
    let service = [
        "--",
        env!("CARGO_BIN_EXE_lameduck"),
        "--drill",
        "--addr=127.0.0.1:{port}",
        "--internal-addr=127.0.0.1:{port2}",
        "--lame-duck=700ms",
        "--drain=2s",
        "--cancel=600ms",
        "--cleanup=1s",
        "--internal-close=500ms",
        "--grace-period=15s",
    ];
    let only = only.iter().flat_map(|name| ["--only", *name]);
    grade_by(check.into_iter().chain(only).chain(service)).expect("the command line is valid")
}

/// Returns the scenarios that did not pass.
fn not_passed(report: &Report) -> Vec<&'static str> {
    // Not every container may create PID namespaces, and this service speaks no TLS.
    let may_be_skipped = |name: &str| name == "signal/pid-1" || name.starts_with("tls/");
    let graded = report.graded.iter().filter(|graded| match graded.verdict {
        Verdict::Pass => false,
        Verdict::Skip(_) => !may_be_skipped(graded.scenario.name),
        Verdict::Fail | Verdict::Broken(_) => true,
    });
    graded.map(|graded| graded.scenario.name).collect()
}

#[test]
fn the_check_finds_no_fault_in_the_service() {
    let mut report = grade(&[]);
    // A busy machine delays a client now and then. A fault fails each time.
    for _ in 0..4 {
        let again = not_passed(&report);
        if again.is_empty() {
            break;
        }
        report = grade(&again);
    }
    let text = format(&report, Format::Human, true);
    assert_eq!((report.exit_code(true), not_passed(&report)), (0, vec![]), "{text}");
}
