//! System calls that the service can do without. The profile of a container or a sandbox refuses
//! some of them.

use super::service_without;
use crate::support::{Client, End, Service, aside, until, until_holds};
use nix::libc::{self, c_int, c_long};
use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// A name for the tests, the call, and the values of its arguments that make it optional.
struct Optional(&'static str, c_long, &'static [(u8, c_int)]);

const SO_ATTACH_REUSEPORT_CBPF: c_int = 51;

const OPTIONAL: [Optional; 13] = [
    Optional("filter", libc::SYS_setsockopt, &[(1, libc::SOL_SOCKET), (2, libc::SO_ATTACH_FILTER)]),
    Optional(
        "decoy",
        libc::SYS_setsockopt,
        &[(1, libc::SOL_SOCKET), (2, SO_ATTACH_REUSEPORT_CBPF)],
    ),
    Optional("ttl", libc::SYS_setsockopt, &[(1, libc::IPPROTO_IP), (2, libc::IP_MINTTL)]),
    Optional("netlink", libc::SYS_socket, &[(0, libc::AF_NETLINK)]),
    Optional("cookie", libc::SYS_getsockopt, &[(1, libc::SOL_SOCKET), (2, libc::SO_COOKIE)]),
    Optional("affinity", libc::SYS_sched_getaffinity, &[]),
    Optional("limits", libc::SYS_prlimit64, &[]),
    Optional("nowait", libc::SYS_pwritev2, &[]),
    Optional("replace", libc::SYS_dup3, &[]),
    Optional("pidfd", libc::SYS_pidfd_open, &[]),
    Optional("copies", libc::SYS_pidfd_getfd, &[]),
    Optional("compare", libc::SYS_kcmp, &[]),
    Optional("events", libc::SYS_perf_event_open, &[]),
];

/// Makes the named calls return this error from now on: `EPERM:filter,decoy`.
pub(super) fn refuse(what: &str) {
    let (error, names) = what.split_once(':').unwrap();
    let error = if error == "EPERM" { libc::EPERM } else { libc::ENOSYS };
    let names: Vec<_> = names.split(',').collect();
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for Optional(_, call, arguments) in
        OPTIONAL.iter().filter(|optional| names.contains(&optional.0))
    {
        let conditions = arguments
            .iter()
            .map(|(at, value)| SeccompCondition::new(*at, Dword, Eq, *value as u64).unwrap());
        let conditions: Vec<_> = conditions.collect();
        let of_call = rules.entry(*call).or_default();
        if !conditions.is_empty() {
            of_call.push(SeccompRule::new(conditions).unwrap());
        }
    }
    let refused = SeccompAction::Errno(error as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// A run with requests of every kind, one of them in flight at the stop. Returns its log lines.
fn lives(what: &str) -> Vec<Value> {
    let flags = ["--lame-duck=0s", "--connections-max=100"];
    let mut service = Service::watch(&mut service_without(&format!("calls={what}"), &flags));
    service.wait_for_phase("serving");
    let mut idle = Client::connect(service.main);
    assert_eq!(idle.get("/").status, 200);
    let (main, mut large) = (service.main, Client::connect(service.main));
    large.send_get("/big?bytes=2000000");
    let slow = aside(move || Client::connect(main).get("/slow?ms=200").status);
    service.wait_for_started(3);
    assert_eq!(service.probe("/readiness").status, 200);
    service.signal(Signal::TERM);
    assert_eq!(slow.join().unwrap(), 200, "{what}");
    assert_eq!(large.answer().bytes.len(), 2_000_000, "{what}");
    assert!(matches!(idle.end(), End::Closed), "{what}");
    assert_eq!(service.exit_code(), 0, "{what}: {:?}", service.lines());
    let requests = &service.report()["requests"];
    assert_eq!(
        (&requests["finished"], &requests["started"]),
        (&3.into(), &3.into()),
        "{what}: {requests}"
    );
    service.lines()
}

fn warnings(lines: &[Value]) -> Vec<String> {
    let loud = lines
        .iter()
        .filter(|line| line["level"] == "WARN" || line["level"] == "ERROR" || line.is_string());
    loud.map(ToString::to_string).collect()
}

const NOT_SEALED: &str =
    "cannot block new connections while the accept queue is emptied; some may be reset";

#[test]
fn no_optional_call_is_needed_whatever_error_refuses_it() {
    for error in ["EPERM", "ENOSYS"] {
        for Optional(name, ..) in OPTIONAL {
            let said = warnings(&lives(&format!("{error}:{name}")));
            assert!(said.is_empty(), "{error} for {name}: {said:?}");
        }
    }
}

// A sandbox refused the call that never waits with EPERM. A start that failed wrote no line, and
// the operator had only its exit code (P14).
#[test]
fn a_failed_start_writes_its_line_whatever_error_refuses_the_call_that_never_waits() {
    for error in ["EPERM", "ENOSYS"] {
        let flags = ["--addr=unix:/nonexistent/app.sock"];
        let ended = service_without(&format!("calls={error}:nowait"), &flags).output().unwrap();
        let lines = String::from_utf8_lossy(&ended.stderr);
        let (code, errors) = (ended.status.code(), lines.matches("error: ").count());
        assert_eq!((code, errors), (Some(1), 1), "{error}: {lines}");
    }
}

/// A listener that cannot be sealed in either way can reset connections. The operator must find the
/// reason in the log.
#[test]
fn a_listener_that_cannot_be_sealed_is_logged_with_the_reason() {
    for (error, reason) in [("EPERM", "not permitted"), ("ENOSYS", "not implemented")] {
        for second in ["decoy", "ttl"] {
            let said = warnings(&lives(&format!("{error}:filter,{second}")));
            assert!(
                !said.is_empty() && said.iter().all(|line| line.contains(NOT_SEALED)),
                "{said:?}"
            );
            assert!(said[0].to_lowercase().contains(reason), "{said:?}");
        }
    }
}

fn all() -> String {
    OPTIONAL.map(|Optional(name, ..)| name).join(",")
}

#[test]
fn without_any_optional_call_as_in_a_sandbox_no_request_is_lost() {
    for error in ["EPERM", "ENOSYS"] {
        let said = warnings(&lives(&format!("{error}:{}", all())));
        assert!(said.iter().all(|line| line.contains(NOT_SEALED)), "{said:?}");
    }
}

/// At the stop the kernel is queried once about the idle connections of a worker. Where it does not
/// respond, they must be closed like without the query.
#[test]
fn many_idle_connections_are_closed_without_the_kernels_report_of_them() {
    let flags = ["--lame-duck=0s", "--connections-max=300"];
    let mut service = Service::watch(&mut service_without("calls=EPERM:netlink,cookie", &flags));
    service.wait_for_phase("serving");
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(service.main)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    // After a second an idle connection needs no task any more.
    until_holds("they are in the idle sets", || {
        let page = service.probe("/metrics").body();
        let tasks = page.lines().filter_map(|line| line.strip_prefix("tokio_tasks_alive{"));
        let tasks: Vec<f64> =
            tasks.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        tasks.len() == 2 && tasks.iter().sum::<f64>() < 50.0
    });
    service.signal(Signal::TERM);
    for client in &mut clients {
        assert!(matches!(client.end(), End::Closed));
    }
    assert_eq!(service.exit_code(), 0, "{:?}", service.lines());
    assert!(warnings(&service.lines()).is_empty(), "{:?}", service.lines());
}

/// Docker's profile refuses the call that copied the sockets to reset them at the exit. Of 1,000
/// responses that a dying process had cut, 927 ended with a FIN and looked complete. None may
/// (P5d).
#[test]
fn responses_of_a_killed_process_do_not_look_complete_without_any_optional_call() {
    for (what, signal) in
        [(format!("EPERM:{}", all()), Signal::KILL), ("ENOSYS:copies".to_owned(), Signal::ABORT)]
    {
        let mut service = Service::watch(&mut service_without(&format!("calls={what}"), &[]));
        service.wait_for_phase("serving");
        let mut streams: Vec<_> = (0..20).map(|_| Client::connect(service.main)).collect();
        for stream in &mut streams {
            // An HTTP/1.0 response ends with its connection.
            stream.send("GET /stream?ms=60000 HTTP/1.0\r\n\r\n");
            stream.head().unwrap();
        }
        service.signal(signal);
        until("its end", || (!service.is_running()).then_some(()));
        for stream in &mut streams {
            assert!(matches!(stream.end(), End::Reset), "{what}");
        }
    }
}

/// A complete response of which the client has not acknowledged a byte must survive the exit (P5d).
#[test]
fn a_complete_response_outlives_the_process() {
    let mut service = Service::start(&["--lame-duck=0s"]);
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(service.main)).collect();
    for client in &mut clients {
        client.send("GET /big?bytes=100000 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    }
    until("all are answered", || {
        let connections = &service.status()["connections"];
        (connections["accepted"] == 20 && connections["open"] == 0).then_some(())
    });
    service.signal(Signal::KILL);
    until("its end", || (!service.is_running()).then_some(()));
    for client in &mut clients {
        assert_eq!(client.answer().bytes.len(), 100_000);
        assert!(matches!(client.end(), End::Closed));
    }
}
