//! Limits on threads and descriptors.

use super::service_without;
use crate::support::{Client, Service, block, now, until, until_holds};
use crate::tls::Files;
use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, getrlimit, prlimit, setrlimit};
use std::{
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

/// The time of a prompt stop, with tolerance for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(8);

pub(super) fn descriptors(most: &str) {
    limit(Resource::Nofile, most);
}

/// Root has no limit on threads, so `service` becomes a user without another process.
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

/// The result of a start.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// The start failed with exit code 1 and this line.
    Failed(String),
    /// The service served, and stopped at once after the stop request.
    Served,
}

/// Starts the service, and asserts one of these two results.
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

/// Starts the service with increasing limits, until it has served three times in total. Returns the
/// error lines of the failed starts.
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

/// With a limit of 6 or 7 descriptors, tokio panicked because of its socket pair: exit code 101 and
/// no `error:` line. With a few more the service started and could not stop: each accept of the
/// drain failed without a descriptor, even with an empty queue. A start must fail in one line, or
/// the service must serve and stop at once (P14, P8).
#[test]
fn with_too_few_descriptors_the_start_fails_in_one_line_or_the_service_stops_at_once() {
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

/// The error of the certificate's files had only the system's reason. A start that the system
/// refuses a descriptor names the limit to raise (P14).
#[test]
fn with_too_few_descriptors_for_its_certificate_the_start_names_the_limit() {
    let files = Files::new("too-few");
    let flags = files.flags();
    let flags = [&FLAGS[..], &flags.each_ref().map(String::as_str)].concat();
    let said = sweep(12, |most| service_without(&format!("descriptors={most}"), &flags));
    assert!(said.iter().any(|line| line.contains("cannot speak TLS")), "{said:#?}");
    assert!(said.iter().all(|line| line.contains("ulimit -n")), "{said:#?}");
}

/// The default connection limit did not count the descriptors of the workers. With many of them,
/// idle clients used up all descriptors before the limit was reached. So no connection was closed
/// for a new one, and new clients got no response (P15). Later each worker closed only its own
/// connections: at the limit, one without any accepted nothing, however many idled on the others.
#[test]
fn with_many_workers_idle_connections_make_room_before_descriptors_are_used_up() {
    let flags = ["--workers=8", "--lame-duck=0s"];
    let mut service = Service::watch(&mut service_without("descriptors=256", &flags));
    service.wait_for_phase("serving");
    let idle: Vec<_> = (0..230).map(|_| Client::connect(service.main)).collect();
    // 256, less 64, and less 8 for each worker.
    until_holds("230 clients", || service.status()["connections"]["accepted"] == 230);
    until_holds("the limit", || service.status()["connections"]["open"].as_u64() <= Some(128));
    drop(idle);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    let lines = service.lines();
    let refused = lines.iter().filter(|line| line.to_string().contains("cannot accept"));
    assert_eq!(refused.count(), 0, "{lines:?}");
}

/// A limit of three threads made the start hang for ever, even after SIGTERM. tokio had panicked
/// because of the second thread of a runtime, whose drop waited for the first. With one or two
/// threads, the exit code was 101. A start must fail in one line (P14).
#[test]
fn with_too_few_threads_the_start_fails_in_one_line_or_the_service_stops_at_once() {
    let copy = std::env::temp_dir().join(format!("lameduck-{}-threads", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_lameduck"), &copy).unwrap();
    let said = if geteuid().is_root() {
        sweep(1, |most| {
            let mut service = service_without(&format!("threads={most}"), &FLAGS);
            service.env(super::BINARY, &copy);
            service
        })
    } else {
        // The threads of the tester count, too, so none is left.
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

/// An idle process that had used up its descriptors took 12.8 s to stop, the whole drain and cancel
/// wait. The stop must be as prompt as any other (P8).
#[test]
fn a_stop_without_a_free_descriptor_is_prompt() {
    let mut service = Service::start(&["--lame-duck=0s"]);
    // The kernel may not yet have closed the descriptor of the last scrape.
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
