//! Limits on threads and descriptors.

use super::service_without;
use crate::support::{Service, block, now, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, getrlimit, prlimit, setrlimit};
use std::{
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

/// Plus what the tests may take on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(2);

pub(super) fn descriptors(most: &str) {
    limit(Resource::Nofile, most);
}

/// Root has as many threads as it likes: `service` becomes a user that has no other.
pub(super) fn threads(most: &str, service: &mut Command) {
    limit(Resource::Nproc, most);
    if geteuid().is_root() {
        service.uid(100_000 + std::process::id());
    }
}

fn limit(resource: Resource, most: &str) {
    let current = Some(most.parse().unwrap());
    setrlimit(resource, Rlimit { current, maximum: getrlimit(resource).maximum }).unwrap();
}

/// How a start ended.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// With exit code 1 and this line.
    Failed(String),
    /// It served. Then it was asked to stop, and did, at once.
    Served,
}

/// Starts it, and lets nothing pass but these two.
fn start(mut service: Service, what: &str) -> Start {
    let begin = now();
    let serving = until(what, || {
        let phases = service.phases();
        if phases.iter().any(|phase| phase == "serving") {
            Some(true)
        } else {
            (!service.is_running()).then_some(false)
        }
    });
    if serving {
        let asked = now();
        service.signal(Signal::TERM);
        let (code, took) = service.exit_code_since(asked);
        assert!(
            code == 0 && took < AT_ONCE,
            "{what}: exit code {code} after {took:?}: {:?}",
            service.lines()
        );
        return Start::Served;
    }
    let code = service.exit_code();
    let text = |line: &serde_json::Value| line.as_str().unwrap_or_default().to_owned();
    let plain: Vec<_> = service.lines().iter().map(text).filter(|line| !line.is_empty()).collect();
    let logged = format!("{what}: exit code {code}, {:?}", service.lines());
    assert!(code == 1 && plain.len() == 1 && plain[0].starts_with("error: "), "{logged}");
    assert!(
        !service.lines().iter().any(|line| line["message"] == "panicked")
            && begin.elapsed() < AT_ONCE,
        "{logged}"
    );
    Start::Failed(plain.into_iter().next().unwrap())
}

/// Starts it with ever more of something, until it has served three times in a row. Returns what it
/// said until then.
fn sweep(from: u32, mut command: impl FnMut(u32) -> Command) -> Vec<String> {
    let mut said = Vec::new();
    let mut served = 0;
    for most in from..200 {
        match start(Service::launch(&mut command(most)), &format!("with {most}")) {
            Start::Failed(line) => said.push(line),
            Start::Served => served += 1,
        }
        if served == 3 {
            return said;
        }
    }
    panic!("it never serves: {said:?}");
}

const FLAGS: [&str; 2] = ["--connections-max=1", "--lame-duck=0s"];

/// With a limit of 6 or 7 descriptors tokio panicked over its socket pair: exit code 101 and no
/// `error:` line. With a few more, the service started and could not stop: each accept of the drain
/// failed for want of a descriptor, also with an empty queue.
#[test]
fn whatever_descriptor_is_refused_the_start_fails_in_one_line_or_the_service_serves_and_stops_at_once()
 {
    let said = sweep(4, |most| service_without(&format!("descriptors={most}"), &FLAGS));
    for what in ["driver's runtime", "control runtime", "internal server", "main address", "worker"]
    {
        assert!(
            said.iter().any(|line| line.contains(what)),
            "no start failed at {what}: {said:#?}"
        );
    }
    assert!(said.iter().all(|line| line.contains("ulimit -n")), "{said:#?}");
}

/// A limit that allowed three threads hung the start for ever, deaf to SIGTERM: tokio had panicked
/// over the second thread of a runtime, whose drop waited for the first. With one or two it exited
/// with code 101.
#[test]
fn whatever_thread_is_refused_the_start_fails_in_one_line_or_the_service_serves_and_stops_at_once()
{
    let copy = std::env::temp_dir().join(format!("lameduck-{}-threads", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_lameduck"), &copy).unwrap();
    let said = if geteuid().is_root() {
        sweep(1, |most| {
            let mut service = service_without(&format!("threads={most}"), &FLAGS);
            service.env(super::BINARY, &copy);
            service
        })
    } else {
        // The tester's own threads count, too: none is left.
        vec![match start(Service::launch(&mut service_without("threads=1", &FLAGS)), "with 1") {
            Start::Failed(line) => line,
            Start::Served => panic!("a limit that does not hold"),
        }]
    };
    std::fs::remove_file(&copy).unwrap();
    let first = said.iter().find(|line| line.contains("the log thread"));
    assert!(first.is_some_and(|line| line.contains("ulimit -u")), "{said:#?}");
    if geteuid().is_root() {
        for what in ["control runtime", "internal server", "worker"] {
            assert!(
                said.iter().any(|line| line.contains(what)),
                "no start failed at {what}: {said:#?}"
            );
        }
    }
}

/// An idle process that had used up its descriptors took 12.8 s to stop, the whole of drain and
/// cancel.
#[test]
fn a_stop_without_a_free_descriptor_takes_no_longer_than_any() {
    let mut service = Service::start(&["--lame-duck=0s"]);
    // The kernel may not have closed yet what the last scrape used.
    let open = |pid: Pid| {
        std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count() as u64
    };
    block(Duration::from_millis(100));
    let most =
        Rlimit { current: Some(open(service.pid())), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(service.pid()), Resource::Nofile, most).unwrap();
    let asked: Instant = now();
    service.signal(Signal::TERM);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 0);
    assert!(took < AT_ONCE, "{took:?}");
    let warnings: Vec<_> =
        service.lines().into_iter().filter(|line| line["level"] == "WARN").collect();
    assert!(warnings.is_empty(), "newcomers are kept out all the same: {warnings:?}");
}
