//! The last request before the exit is in the access log, and its span was exported.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

#[test]
fn the_last_request_is_in_the_access_log_and_has_a_span() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (log, socket) = (folder.join("access.log"), folder.join("internal.sock"));
    let _ = fs::remove_file(&log);
    // A free port: the kernel does not give it to another process right after.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = Command::new(env!("CARGO_BIN_EXE_telemetry"))
        .env("APP_ADDR", format!("127.0.0.1:{port}"))
        .env("INTERNAL_ADDR", format!("unix:{}", socket.display()))
        .env("SHUTDOWN_LAME_DUCK", "0s")
        .env("ACCESS_LOG", &log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = String::new();
    for _ in 0..400 {
        if let Ok(mut client) = TcpStream::connect(("127.0.0.1", port)) {
            client.write_all(b"GET /?query HTTP/1.0\r\nhost: t\r\n\r\n").unwrap();
            client.read_to_string(&mut answer).unwrap();
            break;
        }
        sleep(Duration::from_millis(25));
    }
    assert!(answer.ends_with("hello"), "{answer}");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(child.wait().unwrap().success());
    let line = fs::read_to_string(log).unwrap();
    assert!(line.contains(" GET / HTTP/1.1 200 5 ") && line.ends_with(" finished\n"), "{line}");
    let mut spans = String::new();
    child.stdout.unwrap().read_to_string(&mut spans).unwrap();
    assert!(spans.contains("lameduck.outcome") && spans.contains("GET /"), "{spans}");
}
