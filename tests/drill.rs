//! The binary's routes: hello world, and what one practises shutdowns with.

mod support;

use std::time::Duration;
use support::{Answer, Client, Service, now, service, wire};

fn ask(service: &Service, method: &str, path: &str) -> Answer {
    wire::request(service.main, &format!("{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"))
}

#[test]
fn hello_world_is_at_exactly_the_root_with_the_version_in_a_header() {
    let service = Service::start(&["--app-version=1.2.3"]);
    let answer = service.get("/");
    assert_eq!((answer.status, answer.body().as_str(), answer.header("app-version")), (200, "hello world", Some("1.2.3")));
    assert!(answer.header("date").is_some(), "RFC 9110 §6.6.1");
    assert_eq!(service.get("/?any=query").status, 200);
    for path in ["/index.html", "//", "/hello", "/Slow"] {
        assert_eq!(service.get(path).status, 404, "{path}");
    }
    let not_allowed = ask(&service, "DELETE", "/");
    assert_eq!((not_allowed.status, not_allowed.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn head_gets_the_head_alone() {
    let service = Service::start(&[]);
    let mut client = Client::connect(service.main);
    client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("11")));
    assert_eq!(client.get("/").body(), "hello world", "no body lay between the two");
}

#[test]
fn without_the_flag_there_are_no_drill_routes() {
    let flags = ["--addr=127.0.0.1:0", "--internal-addr=127.0.0.1:0", "--log-format=json"];
    let service = Service::watch(service::command().args(flags));
    service.wait_for_phase("serving");
    for path in ["/slow", "/stuck", "/stream", "/big", "/upgrade", "/panic", "/echo"] {
        assert_eq!(service.get(path).status, 404, "{path}");
    }
    assert_eq!(service.get("/").status, 200);
}

#[test]
fn each_route_does_what_it_says() {
    let service = Service::start(&[]);
    let begin = now();
    assert_eq!(service.get("/slow?ms=200").body(), "slow done\n");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    assert_eq!(service.get("/slow").body(), "slow done\n", "no time is no wait");
    let begin = now();
    assert_eq!(service.get("/stuck?ms=200").body(), "stuck half done\n");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let known = service.get("/stuck?ms=100&head=1");
    assert_eq!((known.body().as_str(), known.header("content-length")), ("stuck half done\n", Some("16")));
    let chunked = service.get("/stuck?ms=100&chunked=1");
    assert_eq!((chunked.body().as_str(), chunked.header("transfer-encoding")), ("stuck half done\n", Some("chunked")));
    let stream = service.get("/stream?ms=250");
    assert_eq!((stream.body().as_str(), stream.header("transfer-encoding")), ("piece 0\npiece 1\nend\n", Some("chunked")));
    assert_eq!(service.get("/stream").body(), "end\n");
    let big = service.get("/big?bytes=1000001");
    assert_eq!((big.bytes.len(), big.header("content-length")), (1_000_001, Some("1000001")));
    assert_eq!(service.get("/big").bytes, b"");
    assert_eq!(service.get("/panic").status, 500);
}

#[test]
fn echo_answers_what_it_read_whole_and_no_more_than_16_mib() {
    let service = Service::start(&["--request-timeout=60s"]);
    let echo = |body: &str| {
        let length = body.len();
        wire::request(service.main, &format!("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n{body}"))
    };
    assert_eq!(echo("hello").body(), "hello");
    assert_eq!(echo("").body(), "");
    let chunked = "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(wire::request(service.main, chunked).body(), "abcde");
    let most = "x".repeat(16 << 20);
    assert_eq!(echo(&most).bytes.len(), most.len());
    let mut client = Client::connect(service.main);
    client.send(format!("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", most.len() + 1));
    // It may answer before it has read it all.
    let _ = client.try_send(&most);
    let _ = client.try_send("x");
    let refused = client.answer();
    assert_eq!(refused.status, 413);
    assert!(refused.body().contains("16777216"), "{}", refused.body());
    let mut polite = Client::connect(service.main);
    polite.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(polite.head().unwrap().status, 100);
    polite.send("hello");
    assert_eq!(polite.answer().body(), "hello");
}

#[test]
fn upgrade_switches_to_the_offered_protocol_and_echoes() {
    let service = Service::start(&[]);
    let mut client = Client::connect(service.main);
    client.send("GET /upgrade HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: my-protocol\r\n\r\n");
    let answer = client.head().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("my-protocol")));
    client.send("anything");
    assert_eq!(client.exactly(8).unwrap(), b"anything");
    client.shut_write();
    assert_eq!(client.end(), support::End::Closed);
    let plain = service.get("/upgrade");
    assert_eq!(plain.status, 426);
    support::until_holds("the tally", || service.status()["connections"]["open"] == 0);
}

#[test]
fn a_bad_parameter_gets_a_400_that_says_which() {
    let service = Service::start(&[]);
    for (path, words) in [
        ("/slow?ms=abc", ["`ms`", "abc"]),
        ("/slow?ms=-1", ["`ms`", "-1"]),
        ("/slow?ms=", ["`ms`", "whole number"]),
        ("/slow?ms=600001", ["`ms`", "600000"]),
        ("/stuck?ms=600001", ["`ms`", "600000"]),
        ("/stuck?head=2", ["`head`", "2"]),
        ("/stuck?chunked=yes", ["`chunked`", "yes"]),
        ("/stream?ms=99999999999999999999", ["`ms`", "600000"]),
        ("/big?bytes=1073741825", ["`bytes`", "1073741824"]),
        ("/slow?milliseconds=5", ["milliseconds", "ms"]),
    ] {
        let answer = service.get(path);
        assert_eq!(answer.status, 400, "{path}");
        for word in words {
            assert!(answer.body().contains(word), "{path}: {}", answer.body());
        }
    }
    assert_eq!(service.status()["requests"]["panicked"], 0);
}

#[test]
fn the_wrong_method_gets_a_405_that_says_which_is_right() {
    let service = Service::start(&[]);
    for path in ["/slow", "/stuck", "/stream", "/big", "/upgrade", "/panic"] {
        let answer = ask(&service, "POST", path);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{path}");
    }
    let answer = ask(&service, "GET", "/echo");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}
