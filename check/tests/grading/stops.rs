//! Stops by a command or a request.

use crate::{TURN, ended, graded, try_graded};
use lameduck_check::{
    formats::{Format, format},
    grading::Verdict,
};

#[test]
fn a_stop_command_that_goes_on_holds_nothing_and_is_killed() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let file = std::env::temp_dir().join(format!("lameduck-stop-{}", std::process::id()));
    // A standard input that is not empty would hold `cat`.
    let stop = format!("--stop=cmd:cat; kill {{pid}}; echo $$ >> {}; sleep 60", file.display());
    let only = ["--only=exit/code", "--only=lame-duck/new-connection", "--repeat=1"];
    let report = graded("none", &[&[stop.as_str()], &only[..]].concat());
    let text = format(&report, Format::Human, true);
    assert_eq!(report.exit_code(true), 0, "{text}");
    assert!(report.graded.iter().all(|graded| graded.findings.tries > 0), "{text}");
    assert!(report.took < std::time::Duration::from_secs(10), "{text}");
    let pids = std::fs::read_to_string(&file).unwrap();
    // One for each scenario, and one to three to measure the time that it takes.
    assert!((3..=5).contains(&pids.lines().count()), "{pids}");
    for pid in pids.lines() {
        ended::until("the stop command still runs", || !ended::runs(pid));
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_scenario_whose_stop_command_fails_could_not_be_tried() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = graded("none", &["--stop=cmd:echo alas; exit 3", "--only=exit/*", "--repeat=1"]);
    assert_eq!(report.exit_code(false), 2, "{}", format(&report, Format::Human, false));
    for graded in &report.graded {
        let why = "the stop command: exit code 3 alas".to_owned();
        assert_eq!(graded.verdict, Verdict::Broken(why), "{}", graded.scenario.name);
    }
}

// A server that responds to the stop request after its drain was not tried: the check waited for
// the response, and found nothing wrong in a lame duck delay that was over.
#[test]
fn the_response_to_a_stop_request_is_not_waited_for() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let only = ["--only=exit/code", "--only=lame-duck/new-connection", "--repeat=1"];
    let stop = "--stop=http:POST:127.0.0.1:{port2}/stop";
    let report = graded("none", &[&[stop], &only[..]].concat());
    let text = format(&report, Format::Human, true);
    assert_eq!(report.exit_code(true), 0, "{text}");
    assert!(report.graded.iter().all(|graded| graded.findings.tries > 0), "{text}");
    let report = graded("none", &[&["--stop=http:POST:127.0.0.1:{port2}/x"], &only[..]].concat());
    for graded in &report.graded {
        assert_eq!(graded.verdict, Verdict::Broken("the stop request: 404".to_owned()));
    }
}

// A server that closes its listener at the stop passed, if a command took some time until it sent
// the signal: the check looked at a server that was not yet asked to stop.
#[test]
fn a_stop_command_that_takes_time_does_not_hide_the_stop() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let fault = "lame-duck/new-connection";
    let only = ["--stop=cmd:sleep 0.5; kill {pid}", "--only=lame-duck/new-connection"];
    let options = [&only[..], &["--repeat=1"]].concat();
    let error = try_graded(fault, &options).unwrap_err();
    assert!(error.contains("no sign of the stop") && error.contains("--stop-takes"), "{error}");
    let report = graded(fault, &[&options[..], &["--stop-takes=510ms"]].concat());
    assert_eq!(report.graded[0].verdict, Verdict::Fail, "{:?}", report.graded[0].findings);
    // With a longer delay the time is measured.
    let report = graded(fault, &[&options[..], &["--lame-duck=2s"]].concat());
    assert_eq!(report.graded[0].verdict, Verdict::Fail, "{:?}", report.graded[0].findings);
}
