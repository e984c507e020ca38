//! P5d, P7: requests that outlast the drain and ignore the cancellation. Each is cut, reported and
//! counted, and no cut response looks complete.

use super::{
    help::{End, Exit, Server, ms, pass, s},
    http2_client::{Http2, Manners},
};

/// Everything after the stop request ends within two seconds.
const HURRIED: [&str; 6] = ["--lame-duck", "0s", "--drain", "500ms", "--cancel", "600ms"];

#[track_caller]
fn tells_of(exit: &Exit, head_sent: bool) {
    assert_eq!((exit.code, exit.requests("aborted")), (3, 1), "{exit:?}");
    let abort = &exit.report["aborts"][0];
    assert_eq!((&abort["method"], &abort["path"]), (&"GET".into(), &"/stuck".into()), "{exit:?}");
    assert_eq!(abort["head_sent"], head_sent, "{exit:?}");
    assert_eq!(abort["phase"], "cancelling", "{exit:?}");
    assert!(abort["age_ms"].as_u64().unwrap() >= 500, "{exit:?}");
    assert_eq!(exit.connections("reset"), u64::from(head_sent), "{exit:?}");
    // A connection that is reset does not count as drained as well.
    assert_eq!(exit.connections("drained"), u64::from(!head_sent), "{exit:?}");
}

#[test]
fn a_request_cut_before_its_head_gets_a_503_with_the_reason() {
    let mut server = Server::start(&HURRIED);
    let mut client = server.ask("/stuck?ms=60000");
    server.await_in_flight(1);
    server.stop();
    let answer = client.answer();
    assert_eq!((answer.status, answer.says_close()), (503, true), "{answer:?}");
    assert!(answer.text().contains("shutting down"), "{answer:?}");
    client.is_closed();
    tells_of(&server.exit().within(s(5)), false);
}

#[track_caller]
fn is_reset_after_its_head(request: &str) {
    let mut server = Server::start(&HURRIED);
    let mut client = server.connect();
    client.send(request);
    assert!(client.head().starts_with("HTTP/1.1 200 OK") || request.contains("HTTP/1.0"));
    server.stop();
    let (bytes, end) = client.rest();
    assert_eq!(
        end,
        End::Reset,
        "a cut answer that looks whole: {:?}",
        String::from_utf8_lossy(&bytes)
    );
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&bytes));
    tells_of(&server.exit().within(s(5)), true);
}

#[test]
fn a_response_with_a_length_is_reset_when_it_is_cut() {
    is_reset_after_its_head("GET /stuck?ms=60000&head=1 HTTP/1.1\r\nhost: test\r\n\r\n");
}

#[test]
fn a_chunked_response_is_reset_when_it_is_cut() {
    is_reset_after_its_head("GET /stuck?ms=60000&chunked=1 HTTP/1.1\r\nhost: test\r\n\r\n");
}

/// For such a response the close is the end. A FIN would make it look complete (P5d).
#[test]
fn a_response_until_close_is_reset_when_it_is_cut() {
    is_reset_after_its_head("GET /stuck?ms=60000&chunked=1 HTTP/1.0\r\n\r\n");
}

#[test]
fn a_response_to_a_half_closed_client_is_reset_when_it_is_cut() {
    let mut server = Server::start(&HURRIED);
    let mut client = server.ask("/stuck?ms=60000&chunked=1");
    client.finish_sending();
    client.head();
    server.stop();
    let (bytes, end) = client.rest();
    assert_eq!(end, End::Reset, "{:?}", String::from_utf8_lossy(&bytes));
    tells_of(&server.exit().within(s(5)), true);
}

#[test]
fn the_report_names_each_of_many_aborts() {
    let mut server = Server::start(&HURRIED);
    let mut silent: Vec<_> = (0..20).map(|_| server.ask("/stuck?ms=60000")).collect();
    let mut begun: Vec<_> = (0..20).map(|_| server.ask("/stuck?ms=60000&head=1")).collect();
    let mut polite: Vec<_> = (0..20).map(|_| server.ask("/slow?ms=60000")).collect();
    server.await_in_flight(60);
    server.stop();
    for client in &mut silent {
        assert_eq!(client.answer().status, 503);
    }
    for client in &mut begun {
        assert_eq!(client.rest().1, End::Reset);
    }
    for client in &mut polite {
        // The handler saw the cancellation and returned a response.
        assert_eq!(client.answer().text(), "cancelled\n");
    }
    let exit = server.exit().within(s(5));
    assert_eq!(
        (exit.code, exit.requests("aborted"), exit.requests("finished")),
        (3, 40, 20),
        "{exit:?}"
    );
    let aborts = exit.report["aborts"].as_array().unwrap();
    assert_eq!(aborts.len(), 40);
    assert_eq!(aborts.iter().filter(|abort| abort["head_sent"] == true).count(), 20);
    assert_eq!(exit.connections("reset"), 20);
}

/// Requests after the cut one were never started. They get no response, and their unread bytes must
/// not cause a reset that destroys the 503 (P5d).
#[test]
fn a_503_is_not_destroyed_by_requests_after_the_cut_one() {
    let mut server = Server::start(&HURRIED);
    let mut client = server.connect();
    client.send(
        "GET /stuck?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n".to_owned()
            + &super::help::request("/").repeat(50),
    );
    server.await_in_flight(1);
    server.stop();
    pass(ms(1_200));
    assert_eq!(client.answer().status, 503);
    let exit = server.exit().within(s(5));
    assert_eq!((exit.code, exit.requests("started")), (3, 1), "{exit:?}");
}

/// Without time between the abort and the cut, connections were cut before the 503s of their
/// requests were made. Each client saw an empty reset. It must get its 503 even then (P5d).
#[test]
fn a_request_cut_without_a_cancel_wait_gets_its_503() {
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "500ms", "--cancel", "0s"]);
    let mut clients: Vec<_> = (0..10).map(|_| server.ask("/stuck?ms=60000")).collect();
    let mut http2 = Http2::connect(server.service.main, Manners::Good);
    let id = http2.get("/stuck?ms=60000");
    server.await_in_flight(11);
    server.stop();
    for client in &mut clients {
        assert_eq!(client.answer().status, 503);
    }
    assert_eq!(http2.read_stream(id).status, Some(503));
    let exit = server.exit();
    assert_eq!((exit.code, exit.requests("aborted")), (3, 11), "{exit:?}");
}
