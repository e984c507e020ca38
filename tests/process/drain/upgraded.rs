//! P6: connections that speak another protocol after an upgrade. hyper has given them up; the host
//! still bounds and counts them.

use super::help::{Client, Server, ms, pass, s};

const UPGRADE: &str =
    "GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

fn upgraded(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(UPGRADE);
    assert_switched(&mut client);
    client
}

fn assert_switched(client: &mut Client) {
    let head = client.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: echo\r\n"), "{head}");
}

fn assert_echoes(client: &mut Client, word: &str) {
    client.send(word);
    client.expect(word);
}

#[test]
fn an_upgraded_connection_is_counted_gets_the_drain_and_is_then_closed() {
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "1s", "--cancel", "500ms"]);
    let mut client = upgraded(&server);
    assert_echoes(&mut client, "before");
    assert_eq!(server.status()["connections"]["upgraded"], 1);
    assert_eq!(server.status()["connections"]["open"], 1);
    server.stop_and_await("draining");
    pass(ms(200));
    assert_echoes(&mut client, "in the drain");
    let (bytes, _) = client.rest();
    assert!(bytes.is_empty());
    let exit = server.exit().within(s(5));
    assert!(exit.took >= ms(900), "it had the drain: {exit:?}");
    assert_eq!(exit.connections("upgraded"), 1, "{exit:?}");
    assert_eq!(exit.requests("aborted"), 0, "no request was in flight: {exit:?}");
    assert_eq!(exit.code, 0, "{exit:?}");
}

#[test]
fn the_exit_is_prompt_when_the_clients_of_upgraded_connections_leave() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut clients: Vec<_> = (0..5).map(|_| upgraded(&server)).collect();
    for client in &mut clients {
        assert_echoes(client, "hello");
    }
    server.stop_and_await("draining");
    pass(ms(300));
    for client in clients {
        client.finish_sending();
    }
    server.exit_clean().within(s(4));
}

/// A client may send before it has seen the 101. hyper has read those bytes already, and they
/// belong to the new protocol. They must not be lost.
#[test]
fn bytes_that_came_with_the_upgrade_are_not_lost() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send(UPGRADE.to_owned() + "early");
    assert_switched(&mut client);
    client.expect("early");
    assert_echoes(&mut client, "late");
    drop(client);
    server.stop();
    server.exit_clean().within(s(4));
}

#[test]
fn a_connection_can_be_upgraded_in_the_lame_duck_delay() {
    let mut server = Server::start(&["--lame-duck", "400ms"]);
    server.stop_and_await("lame_duck");
    let mut client = upgraded(&server);
    assert!(server.service.await_log(s(10), |line| line["phase"] == "draining"));
    assert_echoes(&mut client, "still here");
    drop(client);
    server.exit_clean().within(s(5));
}

#[test]
fn a_request_before_an_upgrade_on_its_connection_is_counted() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.keep();
    client.send(UPGRADE);
    assert_switched(&mut client);
    assert_echoes(&mut client, "hello");
    client.vanish();
    server.stop();
    let exit = server.exit_clean().within(s(4));
    assert_eq!((exit.requests("finished"), exit.connections("upgraded")), (2, 1), "{exit:?}");
}
