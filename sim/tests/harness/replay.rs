//! A failure, and a replay, show what happened.

use crate::failure_of;
use axum::{Router, extract::Path, routing::get};
use lameduck_sim::{Failure, explore};
use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    process::Command,
    time::Duration,
};

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
fn slow() -> Router {
    let report = |Path(id): Path<u64>| async move {
        let _span = tracing::info_span!("report", id).entered();
        tracing::info!(pages = 3, "the report is begun");
        drop(_span);
        tokio::time::sleep(Duration::from_secs(20)).await;
    };
    Router::new().route("/report/{id}", get(report)).layer(lameduck::RouteTimeout::none())
}

fn failure() -> Failure {
    failure_of(explore(|world| world.host().serve(slow())).get("/report/7").seeds(0..25).run())
}

// `.replay` showed the sentence again and nothing else: no timeline, no log, no picture.
#[test]
fn a_replay_shows_the_timeline_the_log_and_the_picture() {
    let found = failure();
    let replayed = explore(|world| world.host().serve(slow())).replay(found.replay()).run();
    let again = failure_of(replayed);
    assert_eq!(again.broken, found.broken);
    for failure in [found, again] {
        let text = failure.to_string();
        assert!(text.contains("a client sends GET /report/7"), "in words: {text}");
        assert!(text.contains("phase              "), "the timeline: {text}");
        assert!(text.contains("── draining ──"), "the phases: {text}");
        assert!(text.contains("server    host: request aborted"), "the host's log: {text}");
        assert!(text.contains("request 0: GET /report/7"), "the client: {text}");
        let log = "INFO harness::replay report{id=7}: the report is begun pages=3";
        assert!(text.contains(log), "the service's log and its spans: {text}");
        assert!(failure.svg().starts_with("<svg") && failure.trace().contains("phase"));
    }
}

#[test]
fn a_replay_that_passes_shows_it_too_and_needs_no_request() {
    let found = failure();
    let repaired = || Router::new().route("/report/{id}", get(|| async { "done" }));
    let passed = explore(move |world| world.host().serve(repaired())).replay(found.replay()).run();
    assert_eq!(passed.unwrap().scenarios, 1);
}

/// Runs this test binary again, with these variables of the environment and one test.
fn run_again<const N: usize>(variables: [(&str, &OsStr); N]) -> String {
    let test = "replay::a_failure_with_the_environment";
    let this = std::env::current_exe().expect("a test binary");
    let mut command = Command::new(this);
    command.args(["--exact", test, "--nocapture"]).envs(variables);
    let run = command.output().expect("it can be started again");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    format!("{out}{err}")
}

#[test]
fn a_failure_with_the_environment() -> io::Result<()> {
    io::stdout().write_all(failure().to_string().as_bytes())
}

#[test]
fn a_failure_is_saved_as_a_file_that_the_command_shows_and_the_test_replays() {
    let folder = std::env::temp_dir().join(format!("lameduck-failures-{}", std::process::id()));
    let text = run_again([("LAMEDUCK_FAILURES", folder.as_os_str())]);
    let file = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"))
        .unwrap();
    assert!(text.contains(&format!("it was saved as {}", file.display())), "{text}");

    let replay = ("LAMEDUCK_REPLAY", file.as_os_str());
    let replayed = run_again([replay]);
    assert!(replayed.contains("S1 (all requests and work finish) is broken"), "{replayed}");
    // A replay that failed was not saved, although each failure of a run is.
    let second = folder.join("second");
    let replayed = run_again([replay, ("LAMEDUCK_FAILURES", second.as_os_str())]);
    assert!(replayed.contains("it was saved as ") && second.is_dir(), "{replayed}");
    let case = fs::read_to_string(&file).unwrap();
    let again = failure_of(explore(|world| world.host().serve(slow())).replay(case).run());
    assert!(again.broken.why.contains("GET /report/7"), "{again}");

    if let Some(command) = option_env!("CARGO_BIN_EXE_lameduck-sim") {
        let picture = folder.join("again.svg");
        let shown = Command::new(command)
            .args(["--replay".as_ref(), file.as_os_str(), "--svg".as_ref(), picture.as_os_str()])
            .output()
            .unwrap();
        assert_eq!(shown.status.code(), Some(1), "a failure: {shown:?}");
        let timeline = String::from_utf8_lossy(&shown.stdout);
        assert!(timeline.contains("── draining ──"), "{timeline}");
        assert!(String::from_utf8_lossy(&shown.stderr).contains("GET /report/7"), "{shown:?}");
        let svg = fs::read_to_string(file.with_extension("svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg == fs::read_to_string(picture).unwrap());
    }
    fs::remove_dir_all(folder).unwrap();
}
