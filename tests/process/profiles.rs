//! Profiles of the real process, read by Go's own tool, under panics, at the stop, and where the
//! system refuses what a profile may need.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::{
    refused::service_without,
    support::{
        Answer, Client, Service, aside, block, is_at_hand, now, scratch_path,
        service::{ANYWHERE, command},
        soon, until, until_holds, wire,
    },
};
use flate2::read::GzDecoder;
use rpprof::protos::{self, Message};
use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Sends this request again and again from another thread, until it is dropped.
struct Load {
    over: Arc<AtomicBool>,
    sending: Option<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, path: &'static str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let sending = aside(move || {
            while !seen.load(Relaxed) {
                // The stop may refuse it.
                if let Ok(mut client) = Client::try_connect(address) {
                    let _ = client.try_send(format!("GET {path} HTTP/1.0\r\nhost: t\r\n\r\n"));
                    let _ = client.try_answer();
                }
            }
        });
        Self { over, sending: Some(sending) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let _ = self.sending.take().map(JoinHandle::join);
    }
}

/// Returns a client of a long profile that is being taken.
fn long_profile(service: &Service) -> Client {
    until("a profile that is being taken", || {
        let mut client = Client::connect(service.internal);
        client.send_get("/debug/pprof/profile?seconds=60");
        // If the second one came first, the first one was refused.
        let second = service.probe("/debug/pprof/profile?seconds=0.01");
        (second.status == 409).then_some(client)
    })
}

/// Decodes the file of a profile.
fn decode(answer: &Answer) -> protos::Profile {
    assert_eq!(answer.status, 200, "{}", answer.body());
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-encoding"), None, "the file itself is compressed");
    let mut proto = Vec::new();
    GzDecoder::new(answer.bytes.as_slice()).read_to_end(&mut proto).unwrap();
    protos::Profile::decode(proto.as_slice()).unwrap()
}

/// Returns the names of the functions in the stacks that contain this one.
fn stacks_with(profile: &protos::Profile, name: &str) -> BTreeSet<String> {
    let names = |sample: &protos::Sample| -> BTreeSet<String> {
        let locations = sample.location_id.iter().map(|id| &profile.location[*id as usize - 1]);
        let lines = locations.flat_map(|location| &location.line);
        let functions = lines.map(|line| &profile.function[line.function_id as usize - 1]);
        functions.map(|function| profile.string_table[function.name as usize].clone()).collect()
    };
    let stacks = profile.sample.iter().map(names);
    stacks.filter(|stack| stack.iter().any(|function| function.contains(name))).flatten().collect()
}

#[test]
fn a_profile_under_load_names_the_hot_function_and_its_callers() {
    let service = Service::start(&[]);
    let _load = Load::start(service.main, "/cpu?ms=50");
    let answer = service.probe("/debug/pprof/profile?seconds=1.5");
    let profile = decode(&answer);
    let stack = stacks_with(&profile, "drill::hot_function");
    for caller in ["drill::compute", "lameduck::http::exchange", "tokio::runtime"] {
        assert!(stack.iter().any(|function| function.contains(caller)), "{caller}: {stack:?}");
    }
    let go = Command::new("go").arg("version").output().is_ok();
    if !is_at_hand("go", go) {
        return;
    }
    let file = scratch_path("profile.pb.gz");
    fs::write(&file, &answer.bytes).unwrap();
    let pprof = |flag: &str| {
        let output = Command::new("go").args(["tool", "pprof", flag]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let top = pprof("-top");
    assert!(top.contains("drill::hot_function"), "{top}");
    let peek = pprof("-peek=drill::hot_function$");
    assert!(peek.contains("lameduck::drill::compute"), "its caller: {peek}");
    fs::remove_file(file).unwrap();
}

#[test]
fn the_same_is_a_flame_graph_and_the_index_lists_all() {
    let service = Service::start(&[]);
    let _load = Load::start(service.main, "/cpu?ms=50");
    let svg = service.probe("/debug/pprof/profile?seconds=1&format=flamegraph");
    assert_eq!((svg.status, svg.header("content-type")), (200, Some("image/svg+xml")));
    assert!(svg.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(svg.body().contains("hot_function") && svg.body().trim_end().ends_with("</svg>"));
    let index = service.probe("/debug/pprof/").body();
    for path in ["profile", "heap", "cmdline"] {
        assert!(index.contains(&format!("/debug/pprof/{path}")), "{index}");
    }
    let cmdline = service.probe("/debug/pprof/cmdline").body();
    assert!(cmdline.contains("\0--drill\0"), "{cmdline}");
    for (path, status) in [
        ("/debug/pprof/profile?seconds=0", 400),
        ("/debug/pprof/heap", 404),
        ("/debug/pprof/goroutine", 404),
        ("/debug/pprof", 404),
    ] {
        assert_eq!(service.probe(path).status, status, "{path}");
    }
    let elsewhere = service.probe("/nowhere");
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.body().ends_with(", /metrics, /debug/pprof/\n"), "{}", elsewhere.body());
    let post = "POST /debug/pprof/profile HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(wire::request(service.internal, post).status, 405);
    assert_eq!(service.get("/debug/pprof/").status, 404, "not on the main port");
}

#[test]
fn a_page_of_another_site_and_a_head_request_start_no_profile() {
    let service = Service::start(&[]);
    let request_from = |site: &str, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: {site}");
        wire::request(service.internal, &format!("{head}\r\nconnection: close\r\n\r\n"))
    };
    let head_of = |path: &str| {
        let mut client = Client::connect(service.internal);
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        client.head().unwrap()
    };
    for path in ["/debug/pprof/profile?seconds=60", "/debug/pprof/heap"] {
        for site in ["cross-site", "same-site"] {
            let answer = request_from(site, path);
            assert_eq!(answer.status, 403, "{site} {path}: {}", answer.body());
        }
        let answer = head_of(path);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{path}");
    }
    for site in ["none", "same-origin"] {
        decode(&request_from(site, "/debug/pprof/profile?seconds=0.01"));
    }
    assert_eq!(head_of("/debug/pprof/").status, 200);
}

#[test]
fn one_profile_at_a_time_and_a_client_that_leaves_ends_it() {
    let service = Service::start(&[]);
    let first = long_profile(&service);
    let refused = service.probe("/debug/pprof/profile?seconds=0.01");
    assert_eq!((refused.status, refused.body().contains("one at a time")), (409, true));
    drop(first);
    until_holds("the turn of the next", || {
        service.probe("/debug/pprof/profile?seconds=0.01").status == 200
    });
}

#[test]
fn probes_respond_while_a_profile_is_taken_and_symbolised() {
    let service = Service::start(&[]);
    let _load = Load::start(service.main, "/cpu?ms=20");
    let internal = service.internal;
    let profile = aside(move || wire::get(internal, "/debug/pprof/profile?seconds=0.5"));
    while !profile.is_finished() {
        soon(Duration::from_secs(1), || {
            let begin = now();
            assert_eq!(service.probe("/liveness").status, 200);
            begin.elapsed()
        });
    }
    decode(&profile.join().unwrap());
}

// The sampler interrupts threads that unwind, which may hold the lock of the unwinder.
// `LAMEDUCK_PROFILES=1000` takes more profiles than CI, in about two minutes.
#[test]
fn panics_that_unwind_under_profiles_do_no_harm() {
    let service = Service::start(&[]);
    let _panics = [(); 3].map(|()| Load::start(service.main, "/panic"));
    let profiles = std::env::var("LAMEDUCK_PROFILES");
    let profiles = profiles.map_or(20, |profiles| profiles.parse().expect("a number"));
    for _ in 0..profiles {
        decode(&service.probe("/debug/pprof/profile?seconds=0.05"));
    }
    let profile = decode(&service.probe("/debug/pprof/profile?seconds=1"));
    let stack = stacks_with(&profile, "std::panicking");
    assert!(stack.iter().any(|function| function.contains("drill")), "{stack:?}");
    assert_eq!(service.probe("/liveness").status, 200);
    assert!(service.status()["requests"]["panicked"].as_u64().unwrap() > 20);
}

#[test]
fn a_stop_ends_a_profile_with_the_samples_until_then() {
    let mut service = Service::start(&["--lame-duck=5s"]);
    let _load = Load::start(service.main, "/cpu?ms=20");
    // The first profile of a process takes longest.
    decode(&service.probe("/debug/pprof/profile?seconds=0.01"));
    let mut profile = long_profile(&service);
    block(Duration::from_secs(1));
    service.terminate();
    let profile = decode(&profile.answer());
    assert!(profile.duration_nanos < 30_000_000_000, "{}", profile.duration_nanos);
    assert!(!stacks_with(&profile, "hot_function").is_empty());
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn a_profile_that_is_taken_in_the_stop_does_not_delay_the_exit() {
    let mut service = Service::start(&["--lame-duck=2s", "--internal-close=10s"]);
    service.terminate();
    let internal = service.internal;
    let begin = now();
    let profile = aside(move || wire::get(internal, "/debug/pprof/profile?seconds=60"));
    let (code, took) = service.exit_code_since(begin);
    assert_eq!(code, 0);
    // Less than the drain of the internal server, which is 10 s.
    assert!(took < Duration::from_secs(8), "{took:?}");
    let answer = profile.join().unwrap();
    assert_eq!((answer.status, answer.body().contains("exits")), (503, true), "{}", answer.body());
}

/// A client that wanted to know what the drain waits for got a 503 in place of a profile, as if the
/// process exited already.
#[test]
fn a_profile_that_is_requested_in_the_stop_lasts_its_whole_time() {
    let flags = ["--lame-duck=300ms", "--drain=2s", "--cancel=10s", "--request-timeout=0s"];
    let mut service = Service::start(&flags);
    // The first profile of a process takes longest.
    decode(&service.probe("/debug/pprof/profile?seconds=0.01"));
    let mut stuck = Client::connect(service.main);
    stuck.send_get("/stuck?ms=6000");
    service.wait_for_in_flight(1);
    service.terminate();
    let takes = |seconds: &str| {
        let answer = service.probe(&format!("/debug/pprof/profile?seconds={seconds}"));
        let nanos = (seconds.parse::<f64>().unwrap() * 1e9) as i64;
        assert!(decode(&answer).duration_nanos >= nanos, "{seconds}");
    };
    takes("0.4");
    assert_eq!(service.status()["phase"], "draining", "it began in the lame duck delay");
    takes("0.2");
    assert_eq!(service.probe("/debug/pprof/heap").status, 404);
    service.wait_for_phase("cancelling");
    takes("0.2");
    assert_eq!(service.status()["phase"], "cancelling");
    assert_eq!(stuck.answer().status, 200);
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn a_sandbox_that_refuses_performance_events_changes_nothing() {
    let service = Service::watch(&mut service_without("calls=EPERM:events", &[]));
    service.wait_for_phase("serving");
    let _load = Load::start(service.main, "/cpu?ms=20");
    let profile = decode(&service.probe("/debug/pprof/profile?seconds=1"));
    assert!(!stacks_with(&profile, "drill::compute").is_empty());
}

#[test]
fn what_is_missing_for_a_profile_is_named() {
    let mut command = command();
    command.env("TMPDIR", "/nonexistent").args(ANYWHERE);
    let service = Service::watch(&mut command);
    service.wait_for_phase("serving");
    let answer = service.probe("/debug/pprof/profile?seconds=1");
    assert_eq!(answer.status, 501);
    for word in ["/nonexistent", "TMPDIR", "tmpfs"] {
        assert!(answer.body().contains(word), "{word}: {}", answer.body());
    }
}
