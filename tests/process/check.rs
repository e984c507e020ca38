//! `lameduck-check`, which works on any server, finds no fault in this host's shutdown.

use lameduck_check::{
    cli::grade_by,
    formats::{Format, format},
    grading::Verdict,
};

#[test]
fn the_check_finds_no_fault_in_the_service() {
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
        "--",
    ];
    let service = [
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
    let report = grade_by(check.iter().chain(&service)).unwrap();
    assert_eq!(report.exit_code(true), 0, "{}", format(&report, Format::Human, true));
    let skipped: Vec<_> = report
        .graded
        .iter()
        .filter(|graded| matches!(graded.verdict, Verdict::Skip(_)))
        .map(|graded| graded.scenario.name)
        .collect();
    // Not every container may create PID namespaces, and this service speaks no TLS.
    let may_be_skipped = |name: &&str| *name == "signal/pid-1" || name.starts_with("tls/");
    assert!(skipped.iter().all(may_be_skipped), "{skipped:?}");
}
