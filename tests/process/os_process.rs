//! P7, P12, P16: tests that need a process of their own: its signals, its limits, its standard
//! error, its exit. Each test starts itself again.
//!
//! They are separate from the other tests of `os`, because between fork and exec a child holds
//! every descriptor of its parent for a moment. A port that another test has just closed would
//! still listen.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support::{
    in_time,
    os::{Scratch, accept, any_port, bounded, listen_one, tcp},
    until,
};
use lameduck::{
    lifecycle::Signal,
    os::{
        OsNetwork, ReusePort, SocketOptions, SpareFds, ThreadPerWorker, TokioClock, UnixSignals,
        WATCHDOG_EXIT_CODE, stdio::write_stderr_line,
    },
    runtime::{
        Address, Clock, ListenAddress, Listener, Network, QuiesceOutcome, Reservation, ServerRole,
        SignalSource, Spawner,
    },
};
use rustix::process::{self, Resource, Rlimit};
use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    os::fd::AsFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncWriteExt;

const CHILD: &str = "LAMEDUCK_TEST_CHILD";

/// Whether this process is the child that `child` started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// The name of the enclosing test in the test runner.
macro_rules! this_test {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").unwrap();
        path.strip_suffix("::{{closure}}").unwrap_or(path).split_once("::").unwrap().1
    }};
}

/// Returns a command that runs the test of this name alone, in its own process.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command
}

pub(crate) fn passes(test: &str) {
    let output = child(test).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}{complained}");
}

#[tokio::test]
async fn each_stop_signal_is_received_and_none_kills() {
    if !is_child() {
        return passes(this_test!());
    }
    let mut signals = UnixSignals::install().unwrap();
    for (sent, heard) in [
        (process::Signal::HUP, Signal::Hangup),
        (process::Signal::TERM, Signal::Terminate),
        (process::Signal::INT, Signal::Interrupt),
        (process::Signal::QUIT, Signal::Quit),
        (process::Signal::TERM, Signal::Terminate),
    ] {
        process::kill_process(process::getpid(), sent).unwrap();
        assert_eq!(bounded(signals.recv()).await, heard);
    }
}

#[tokio::test]
async fn signals_that_arrive_together_are_all_received() {
    if !is_child() {
        return passes(this_test!());
    }
    let mut signals = UnixSignals::install().unwrap();
    for signal in
        [process::Signal::HUP, process::Signal::QUIT, process::Signal::INT, process::Signal::TERM]
    {
        process::kill_process(process::getpid(), signal).unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < Signal::ALL.len() {
        heard.push(bounded(signals.recv()).await);
    }
    heard.sort();
    assert_eq!(heard, Signal::ALL);
}

#[test]
fn signals_cannot_be_installed_without_a_runtime() {
    UnixSignals::install().unwrap_err();
}

/// Opens files until the process can open no more.
fn exhaust_descriptors() -> Vec<File> {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files
}

/// A container image that holds one static binary has no other files. The reserve opened
/// `/dev/null`, so the service did not start without a mounted `/dev`. It must start (P16).
#[test]
fn the_descriptor_reserve_works_without_dev() {
    if !is_child() {
        return passes(this_test!());
    }
    match process::chroot(concat!(env!("CARGO_MANIFEST_DIR"), "/src")) {
        Ok(()) => assert!(!std::path::Path::new("/dev").exists()),
        // Only root may call `chroot`. The rest of the test holds anyway.
        Err(error) => assert_eq!(error, rustix::io::Errno::PERM),
    }
    assert_eq!(SpareFds::new(4).unwrap().spares(), 4);
}

/// P16: the reserve is smaller than the number of probes, so each descriptor must return when its
/// connection ends.
#[tokio::test]
async fn a_process_without_descriptors_accepts_repeatedly_with_its_reserve() {
    if !is_child() {
        return passes(this_test!());
    }
    let reserve = SpareFds::new(2).unwrap();
    let mut listener = listen_one(&any_port()).await.with_spare_fds(reserve.clone());
    let mut bare = listen_one(&any_port()).await;
    let address = tcp(&listener.local());
    // The clients get their descriptors before the limit, because they are in the same process.
    let clients: Vec<_> = (0..6)
        .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap())
        .collect();
    let queued = TcpStream::connect(tcp(&bare.local())).unwrap();
    process::setrlimit(
        Resource::Nofile,
        Rlimit { current: Some(64), maximum: process::getrlimit(Resource::Nofile).maximum },
    )
    .unwrap();
    let mut hoard = exhaust_descriptors();

    let error = accept(&mut bare).await.unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::MFILE.raw_os_error()),
        "one without a reserve is out of luck"
    );

    for client in clients {
        client.connect(&address.into()).unwrap();
        let (mut probe, _) = accept(&mut listener).await.unwrap();
        assert!(reserve.spares() < 2);
        probe.write_all(b"alive").await.unwrap();
        drop(probe);
        assert_eq!(reserve.spares(), 2, "its descriptor came back");
        assert!(File::open("/dev/null").is_err(), "and nobody else could have it");
        let mut answer = String::new();
        TcpStream::from(client).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "alive");
        // The descriptor of the client is free now. It must not be used.
        hoard.extend(exhaust_descriptors());
    }

    hoard.truncate(1);
    accept(&mut bare).await.unwrap();
    drop(queued);
}

/// Writes into a pipe until it is full.
fn fill(pipe: impl AsFd) {
    rustix::io::ioctl_fionbio(&pipe, true).unwrap();
    while rustix::io::write(&pipe, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&pipe, b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&pipe, false).unwrap();
}

/// Starts a child whose standard error is a full pipe without a reader.
fn start_with_stuck_stderr(test: &str) -> (Child, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let child = child(test).stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    (child, reader)
}

fn wait(mut child: Child) -> ExitStatus {
    let (tell, told) = std::sync::mpsc::channel();
    let pid = process::Pid::from_child(&child);
    std::thread::Builder::new().spawn(move || tell.send(child.wait().unwrap())).unwrap();
    told.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
        process::kill_process(pid, process::Signal::KILL).unwrap();
        panic!("the child hangs")
    })
}

#[test]
fn stderr_lines_into_a_stuck_pipe_are_dropped_and_do_not_block() {
    if is_child() {
        for _ in 0..100 {
            write_stderr_line("nobody reads this");
        }
        return;
    }
    let (child, _reader) = start_with_stuck_stderr(this_test!());
    assert!(wait(child).success());
}

#[test]
fn stderr_lines_into_a_closed_pipe_are_dropped_and_do_not_panic() {
    if is_child() {
        return write_stderr_line("nobody can read this");
    }
    let (child, reader) = start_with_stuck_stderr(this_test!());
    drop(reader);
    assert!(wait(child).success());
}

#[test]
fn a_stderr_line_is_at_most_one_atomic_write_of_a_pipe() {
    if is_child() {
        write_stderr_line("short");
        return write_stderr_line(&"é".repeat(5000));
    }
    let output = child(this_test!()).output().unwrap();
    let short =
        output.stderr.windows(6).position(|window| window == b"short\n").expect("the short line");
    let long = &output.stderr[short + 6..];
    assert_eq!(long.iter().position(|byte| *byte == b'\n'), Some(4095));
}

#[test]
fn stderr_lines_reach_a_file() {
    if is_child() {
        return write_stderr_line("into a file");
    }
    let scratch = Scratch::new("say");
    let path = scratch.path().join("stderr");
    let file = File::create(&path).unwrap();
    let status = child(this_test!()).stdout(Stdio::null()).stderr(file).status().unwrap();
    assert!(status.success());
    assert!(std::fs::read_to_string(&path).unwrap().contains("into a file\n"));
}

/// P7: standard error is stuck, and so is standard output. On its way out the main thread flushes
/// standard output for ever, and a call of `std::process::exit` waits for that. The watchdog must
/// end the process.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is the exit of the user's process that is stuck")]
fn the_watchdog_ends_a_process_that_is_stuck_in_its_own_exit() {
    if is_child() {
        let clock = Arc::new(TokioClock::new());
        let spawner = ThreadPerWorker::new(clock.clone(), NonZeroUsize::MIN);
        spawner.arm_watchdog(clock.now() + Duration::from_millis(200));
        spawner.arm_watchdog(clock.now() + Duration::from_secs(3600));
        drop(spawner);
        fill(rustix::stdio::stdout());
        std::io::stdout().write_all(b"half a line").unwrap();
        std::process::exit(0);
    }
    let (child, _reader) = start_with_stuck_stderr(this_test!());
    assert_eq!(wait(child).code(), Some(i32::from(WATCHDOG_EXIT_CODE)));
}

#[test]
fn the_watchdog_prints_the_reason() {
    if is_child() {
        let clock = Arc::new(TokioClock::new());
        let spawner = ThreadPerWorker::new(clock.clone(), NonZeroUsize::MIN);
        spawner.arm_watchdog(clock.now());
        loop {
            std::thread::park();
        }
    }
    let output = child(this_test!()).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("watchdog: the shutdown exceeded its bound")
    );
}

/// Another user owns the name that marks a port as exclusive. Sharing the port must still be
/// possible.
#[cfg(target_os = "linux")]
#[test]
fn another_user_cannot_prevent_sharing_a_port() {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr as UnixAddress, UnixListener},
            process::CommandExt,
        },
    };
    const NAME: &str = "LAMEDUCK_TEST_NAME";
    if is_child() {
        let name = UnixAddress::from_abstract_name(std::env::var(NAME).unwrap()).unwrap();
        let _squatted = UnixListener::bind_addr(&name).unwrap();
        write_stderr_line("squatted");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    if !process::geteuid().is_root() {
        // Only root can start a process of another user.
        return;
    }
    let scratch = Scratch::new("squatter");
    let copy = scratch.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let reserve = || {
        // No listener: a process that another test is starting may have a copy of it for a while.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let free = socket.local_addr().unwrap().as_socket().unwrap();
        drop(socket);
        let mut squatter = Command::new(&copy);
        squatter
            .args([this_test!(), "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .uid(100_000);
        squatter
            .env(NAME, format!("lameduck exclusive {free} 1.0"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        // Such a process may also have the copied file open for writing.
        let mut squatter = until("the start", || squatter.spawn().ok());
        squatter.stderr.take().unwrap().read_exact(&mut [0; 8]).unwrap();
        let options = SocketOptions::default().reuse_port(ReusePort::Yes);
        let network = OsNetwork::new(options);
        let reserved = network.reserve(&ListenAddress::Tcp(free), ServerRole::Main, 1);
        drop(squatter.stdin.take());
        assert!(squatter.wait().unwrap().success());
        reserved.ok().map(drop)
    };
    // Another process may have taken the port.
    in_time(reserve);
}

/// An app changed its directory between the bind of a relative Unix path and its end, as a daemon
/// does. Its start failed, or its path stayed behind. The path must stay the one that was bound.
#[tokio::test]
async fn a_relative_unix_path_stays_the_same_when_the_directory_changes() {
    if !is_child() {
        return passes(this_test!());
    }
    let scratch = Scratch::new("relative");
    std::env::set_current_dir(scratch.path()).unwrap();
    let address: ListenAddress = "unix:app.sock".parse().unwrap();
    let reserved = OsNetwork::default().reserve(&address, ServerRole::Main, 1).unwrap();
    std::env::set_current_dir("/").unwrap();
    let path = scratch.path().join("app.sock");
    let mut listener = reserved.listen().await.unwrap().remove(0);
    assert_eq!(listener.local(), Address::Unix(Some(path.clone())));
    assert!(matches!(listener.quiesce(), QuiesceOutcome::Sealed));
    assert!(!path.exists(), "it is unlinked");
}
