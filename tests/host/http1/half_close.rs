//! P6: clients that close their side of a connection.

use super::*;
/// A host without a request deadline and with this policy.
fn patient(half_close: HalfClose) -> Host<impl HttpService> {
    limited(Limits::default().half_close(half_close))
}

/// Sends a request for `path`, followed by `behind`, and waits until it runs.
fn run(app: &App, client: &mut Client, path: &str, behind: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n{behind}"));
    until_holds("its start", || app.status()["in_flight"] == 1);
}

// A client shut down its write side, and then its connection was reset. The request stayed in
// flight, and delayed the stop until the end of the cancel wait. After a FIN the kernel returns end
// of file for ever, even after a reset. The client must be found gone (P6). It was, after a second;
// a socket whose read side has ended is queried more often.
#[test]
fn a_client_that_resets_after_a_half_close_is_gone() {
    let mut noticed_after = Duration::ZERO;
    let app = start(patient(HalfClose::Serve));
    let next = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    for behind in ["", next] {
        for path in ["/never", "/endless"] {
            let [idle] = idle(&app);
            for mut client in [Client::connect(app.main), idle] {
                run(&app, &mut client, path, behind);
                client.shut_write();
                block(Duration::from_millis(100));
                assert_eq!(app.status()["in_flight"], 1);
                client.reset();
                let begin = now();
                until_holds("its end", || app.status()["in_flight"] == 0);
                if behind.is_empty() {
                    noticed_after += begin.elapsed();
                }
            }
        }
    }
    assert!(noticed_after < Duration::from_secs(3), "four times: {noticed_after:?}");
    let mut client = Client::connect(app.main);
    run(&app, &mut client, "/never", "");
    client.shut_write();
    app.stop();
    app.wait_for_phase("draining");
    client.reset();
    let report = app.report();
    assert!(report.shutdown < Duration::from_secs(4), "{:?}", report.shutdown);
    assert_eq!(fates(&report), [13, 4, 0, 0, 9]);
}

// A Unix socket has no reset. A client that closes it must be found gone, and one that only shuts
// down its write side must be served (P6).
#[cfg(target_os = "linux")]
#[test]
fn a_closed_unix_client_is_gone_and_a_half_closed_one_is_served() {
    let path = crate::support::scratch_path("gone.sock");
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let service = service_fn(async |request: Request<lameduck::Body>| {
        let context = request.body().context().clone();
        context.cancelled().await;
        Ok::<_, Infallible>(Response::new(Body::from(format!("{:?}", context.cancel_cause()))))
    });
    // An `App` waits for a TCP address.
    let app = start(
        Host::builder(settings().request_timeout(None).main_address(address)).serve_hyper(service),
    );
    let connect = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        stream
    };
    let gone = connect();
    until_holds("its start", || app.status()["in_flight"] == 1);
    drop(gone);
    until_holds("its end", || app.status()["in_flight"] == 0);
    let mut half_closed = connect();
    half_closed.shutdown(std::net::Shutdown::Write).unwrap();
    let mut response = String::new();
    half_closed.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("Some(ClientHalfClosed)"), "{response}");
    assert_eq!(fates(&app.end()), [2, 1, 0, 0, 1]);
}

// A client gave up and closed its connection, which begins with a FIN. The handler ran on, because
// it was not notified. Its context must be cancelled, and the response must still be sent.
#[test]
fn a_half_close_cancels_the_context_and_the_response_is_sent() {
    let app = start(patient(HalfClose::Serve));
    let served = |mut client: Client| {
        let begin = now();
        client.send("GET /cause HTTP/1.1\r\nhost: test\r\n\r\n");
        client.shut_write();
        assert_eq!(client.answer().body(), "Some(ClientHalfClosed)");
        let took = begin.elapsed();
        assert_eq!(client.end(), End::Closed);
        took
    };
    // At once, and not by the check that is made each second.
    soon(Duration::from_millis(500), || served(Client::connect(app.main)));
    soon(Duration::from_millis(500), || {
        let [idle] = idle(&app);
        served(idle)
    });
    // The FIN is found later if another request is queued before it.
    let mut client = Client::connect(app.main);
    run(&app, &mut client, "/cause", "GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    client.shut_write();
    assert_eq!(client.answer().body(), "Some(ClientHalfClosed)");
    assert_eq!(client.answer().body(), "hello");
    assert_eq!(client.end(), End::Closed);
    assert_eq!(fates(&app.end()), [5, 5, 0, 0, 0]);
}

#[test]
fn a_half_close_drops_the_request_if_the_setting_is_drop() {
    let app = start(patient(HalfClose::Drop));
    for (path, end) in [("/never", End::Closed), ("/endless", End::Reset)] {
        let mut client = Client::connect(app.main);
        run(&app, &mut client, path, "");
        if path == "/endless" {
            assert_eq!(client.head().unwrap().status, 200);
            assert_eq!(client.chunk().unwrap(), b"piece");
        }
        client.shut_write();
        assert_eq!(client.end(), end, "{path}");
    }
    // A request that completes at once is served.
    let mut client = Client::connect(app.main);
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    client.shut_write();
    assert_eq!(client.answer().body(), "hello");
    assert_eq!(fates(&app.end()), [3, 1, 0, 0, 2]);
}

#[test]
fn a_half_close_is_ignored_if_the_setting_is_ignore_but_a_reset_is_not() {
    let app = start(patient(HalfClose::Ignore));
    let mut client = Client::connect(app.main);
    run(&app, &mut client, "/late", "");
    client.shut_write();
    assert_eq!(client.answer().body(), "None");
    let mut client = Client::connect(app.main);
    run(&app, &mut client, "/never", "");
    client.shut_write();
    client.reset();
    until_holds("its end", || app.status()["in_flight"] == 0);
    assert_eq!(fates(&app.end()), [2, 1, 0, 0, 1]);
}
