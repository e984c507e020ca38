//! P5b, P5d, P6: the end of a connection over TLS.

use super::*;
use crate::{
    idle_set::bodies::Rude,
    support::{frames::frame, in_time, now},
};
use lameduck_wire::http1;
use std::cell::Cell;

#[test]
fn an_idle_connection_ends_with_a_close_notify() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut parked = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!(parked.get("/").body(), "hello");
        park();
        let mut recent = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!(recent.get("/").body(), "hello");
        let mut http2 = TlsClient::connect(app.main, &identity.client(&["h2"]));
        http2.start_http2("/");
        assert_eq!(http2.http2_body().unwrap(), "hello");
        let unused = TlsClient::connect(app.main, &identity.client(&[]));
        app.stop();
        for mut client in [parked, recent, http2, unused] {
            assert_eq!(client.end(), End::Clean, "{workers:?}");
        }
        let report = app.report();
        assert_eq!((report.code(), report.connections.reset), (0, 0));
        assert_eq!(report.connections.close_races, 0, "an alert is no request");
    }
}

#[test]
fn a_request_in_flight_is_finished_and_its_connection_ends_cleanly() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut http1 = TlsClient::connect(app.main, &identity.client(&[]));
        http1.send_get("/slow");
        let mut http2 = TlsClient::connect(app.main, &identity.client(&["h2"]));
        http2.start_http2("/slow");
        until_holds("both requests", || app.status()["in_flight"] == 2);
        app.stop();
        let response = http1.response().unwrap();
        assert_eq!((response.body().as_str(), response.says_close()), ("slow", true));
        assert_eq!(http1.end(), End::Clean);
        assert_eq!(http2.http2_body().unwrap(), "slow");
        assert_eq!(http2.end(), End::Clean);
        let report = app.report();
        assert_eq!((report.code(), report.requests.finished), (0, 2));
    }
}

#[test]
fn a_record_of_which_half_has_arrived_at_the_stop_is_served() {
    // The bytes of an incomplete record may be a request. Whoever looks at decrypted bytes alone
    // closes the connection under it.
    let identity = identity();
    for workers in ALL_WORKERS {
        for is_parked in [false, true] {
            let (app, mut clients) = in_time(|| {
                let app = start(&identity, workers);
                let mut used = TlsClient::connect(app.main, &identity.client(&[]));
                assert_eq!(used.get("/").body(), "hello");
                let unused = TlsClient::connect(app.main, &identity.client(&[]));
                if is_parked {
                    park();
                }
                let mut clients = [used, unused];
                let rests = clients.each_mut().map(|client| {
                    let record = client.seal(http1::get_bytes("/"));
                    let (half, rest) = record.split_at(record.len() / 2);
                    client.send_raw(half);
                    rest.to_vec()
                });
                let begin = now();
                app.stop();
                app.wait_for_phase("draining");
                block(Duration::from_millis(300));
                for (client, rest) in clients.iter_mut().zip(rests) {
                    client.send_raw(&rest);
                }
                // The drain gives them a second.
                (begin.elapsed() < Duration::from_millis(900)).then_some((app, clients))
            });
            for client in &mut clients {
                let response = client.response().expect("a response");
                assert_eq!(response.body(), "hello", "{workers:?}, parked: {is_parked}");
                assert_eq!(client.end(), End::Clean);
            }
            let report = app.report();
            assert_eq!((report.code(), report.requests.finished), (0, 3));
        }
    }
}

#[test]
fn half_a_record_does_not_hold_the_drain() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!(client.get("/").body(), "hello");
        park();
        let record = client.seal(http1::get_bytes("/"));
        client.send_raw(&record[..record.len() - 1]);
        let report = app.end();
        assert!(report.shutdown < Duration::from_secs(4), "{:?}", report.shutdown);
        assert_eq!(client.response().unwrap().status, 408);
        assert_eq!((report.code(), report.requests.started), (0, 1));
    }
}

#[test]
fn alerts_are_no_requests() {
    // The final read finds bytes, but they are the client's close_notify.
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        for is_parked in [false, true] {
            let mut client = TlsClient::connect(app.main, &identity.client(&[]));
            assert_eq!(client.get("/").body(), "hello");
            if is_parked {
                park();
            }
            client.send_close_notify();
            assert_eq!(client.end(), End::Clean, "{workers:?}, parked: {is_parked}");
        }
        // The client of a last response sends its close_notify while the server closes.
        let mut last = TlsClient::connect(app.main, &identity.client(&[]));
        last.send("GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        block(Duration::from_millis(100));
        last.send_close_notify();
        assert_eq!(last.response().unwrap().body(), "slow");
        assert_eq!(last.end(), End::Clean);
        let report = app.end();
        assert_eq!((report.code(), report.connections.close_races), (0, 0));
    }
}

// A client that sent its last request and its close_notify in one segment, and kept TCP open, was
// kept until its keep-alive or the drain: the session had read its end together with the request,
// where the poller of the idle set does not see it.
#[test]
fn a_close_notify_that_comes_with_a_request_ends_an_idle_connection() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!(client.get("/").body(), "hello");
        park();
        let mut records = client.seal(http1::get_bytes("/"));
        records.extend(client.seal_close_notify());
        client.send_raw(&records);
        assert_eq!(client.response().unwrap().body(), "hello");
        assert_eq!(client.end(), End::Clean, "{workers:?}");
        assert_eq!(app.end().code(), 0);
    }
}

#[test]
fn a_cut_response_ends_without_a_close_notify() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_millis(200));
        let host = Host::builder(settings().plan(plan))
            .tls(identity.server())
            .serve_hyper(service_fn(serve));
        let app = App::start_on(host, workers);
        let mut http1 = TlsClient::connect(app.main, &identity.client(&[]));
        http1.send_get("/endless");
        let mut http2 = TlsClient::connect(app.main, &identity.client(&["h2"]));
        http2.start_http2("/endless");
        until_holds("both requests", || app.status()["in_flight"] == 2);
        let report = app.end();
        assert_eq!(http1.end(), End::Reset, "{workers:?}");
        // The stream may have been reset before the end: then the connection ends cleanly.
        let mut reset = false;
        let end = loop {
            match http2.next_frame() {
                Ok((3, ..)) => reset = true,
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        assert!(reset || end != End::Clean, "{workers:?}: {end:?}");
        assert_eq!((report.code(), report.requests.aborted), (3, 2));
    }
}

// rustls refuses a client that renews its keys without end. The connection ended with a FIN within
// a response that a FIN delimits. So it looked complete to clients that expect no close_notify
// (P5d).
#[test]
fn a_session_that_fails_within_a_response_ends_with_a_reset() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        client.send("GET /chunks HTTP/1.0\r\n\r\n");
        until_holds("the request", || app.status()["in_flight"] == 1);
        for _ in 0..40 {
            client.tls.refresh_traffic_keys().unwrap();
            let records = client.take_records();
            // The server may have ended the session before the last ones.
            if !client.try_send_raw(&records) {
                break;
            }
        }
        assert_eq!(client.end(), End::Reset, "{workers:?}");
        assert_eq!(app.end().requests.gone, 1, "{workers:?}");
    }
}

// A connection that was given up for half a frame ended with a close_notify, although that cut the
// responses of its other streams (P5d).
#[test]
fn half_a_frame_that_cuts_a_stream_ends_without_a_close_notify() {
    let identity = identity();
    let limits = Limits::default().header_timeout(Duration::from_millis(300));
    for workers in ALL_WORKERS {
        let app = App::start_on(host(&identity, limits), workers);
        for (path, expected) in [("/endless", End::Cut), ("/", End::Clean)] {
            let mut client = TlsClient::connect(app.main, &identity.client(&["h2"]));
            client.start_http2(path);
            while client.next_frame().expect("a frame of the response").0 != 0 {}
            client.send(&frame(1, 0, 3, &[0x82])[..5]);
            let mut goaway = false;
            let end = loop {
                match client.next_frame() {
                    Ok((kind, ..)) => goaway |= kind == 7,
                    Err(end) => break end,
                }
            };
            assert_eq!((end, goaway), (expected, true), "{workers:?} {path}");
        }
        drop(app.end());
    }
}

#[test]
fn a_body_that_fails_ends_without_a_close_notify() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let host =
            host_with(settings()).tls(identity.server()).serve_hyper(service_fn(async |_| {
                let parts = [Ok("first"), Err(std::io::Error::other("no more"))];
                let body =
                    Body::from_stream(futures_util::stream::iter(parts).then(async |part| {
                        crate::support::pause(50).await;
                        part
                    }));
                Ok::<_, Infallible>(Response::new(body))
            }));
        let app = App::start_on(host, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        client.send_get("/");
        assert_eq!(client.end(), End::Reset, "{workers:?}");
        drop(app.end());
    }
}

#[test]
fn a_body_that_panics_on_its_length_ends_without_a_close_notify() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let service = service_fn(async |request: Request<lameduck::Body>| {
            let is_rude = request.uri().path() == "/rude";
            let body = if is_rude { Body::new(Rude(Cell::new(1))) } else { Body::from("hello") };
            Ok::<_, Infallible>(Response::new(body))
        });
        let host = host_with(settings()).tls(identity.server()).serve_hyper(service);
        let app = App::start_on(host, workers);
        for is_parked in [false, true] {
            let mut client = TlsClient::connect(app.main, &identity.client(&[]));
            assert_eq!(client.get("/").body(), "hello");
            if is_parked {
                park();
            }
            client.send([http1::get_bytes("/"), http1::get_bytes("/rude")].concat());
            assert_eq!(client.response().expect("the one before").body(), "hello");
            assert_eq!(client.end(), End::Cut, "{workers:?}, parked: {is_parked}");
            assert_eq!(client.unread, b"");
        }
        assert_eq!(app.end().requests.panicked, 2, "{workers:?}");
    }
}

// What has arrived of a record may be the beginning of a head, which has a time limit (P6).
#[test]
fn half_a_record_behind_a_request_has_the_time_limit_of_a_head() {
    let identity = identity();
    let limits = Limits::default().header_timeout(Duration::from_millis(700));
    for workers in ALL_WORKERS {
        let app = App::start_on(host(&identity, limits), workers);
        for is_parked in [false, true] {
            let mut client = TlsClient::connect(app.main, &identity.client(&[]));
            assert_eq!(client.get("/").body(), "hello");
            if is_parked {
                park();
            }
            let request = client.seal(http1::get_bytes("/"));
            let next = client.seal(http1::get_bytes("/"));
            client.send_raw(&[&request, &next[..next.len() / 2]].concat());
            assert_eq!(client.response().unwrap().body(), "hello");
            let begin = now();
            assert_eq!(client.response().expect("a timeout").status, 408);
            assert_eq!(client.end(), End::Clean);
            let waited = begin.elapsed();
            assert!(waited < Duration::from_secs(10), "{workers:?}, {is_parked}: {waited:?}");
        }
        assert_eq!(app.end().code(), 0);
    }
}

/// Sends empty lines in records of which each arrives in two parts, until the connection ends.
/// Returns whether it has ended within this time.
fn is_closed_during_empty_lines(client: &mut TlsClient, limit: Duration) -> bool {
    let begin = now();
    while begin.elapsed() < limit {
        let record = client.seal("\r\n");
        for part in [&record[..5], &record[5..]] {
            if !client.try_send_raw(part) {
                return true;
            }
            block(Duration::from_millis(100));
        }
    }
    false
}

// The wait for the first byte began again with every record of which only a part had arrived, and
// went on from there when the record held an empty line. Such a client kept a connection for ever
// without a request, and held the drain to its end (P6, P15).
#[test]
fn empty_lines_in_parts_of_records_extend_no_wait() {
    let identity = identity();
    let limits = Limits::default().first_byte_timeout(Duration::from_millis(700));
    for workers in ALL_WORKERS {
        let app = App::start_on(host(&identity, limits), workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        let is_closed = is_closed_during_empty_lines(&mut client, Duration::from_secs(4));
        assert!(is_closed, "{workers:?}");
        let report = app.end();
        assert_eq!(report.connections.first_byte_timeouts, 1, "{workers:?}");
    }
}

#[test]
fn empty_lines_in_parts_of_records_do_not_hold_the_drain() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        app.stop();
        let is_closed = is_closed_during_empty_lines(&mut client, Duration::from_secs(5));
        assert!(is_closed, "{workers:?}");
        assert_eq!(app.report().code(), 0);
    }
}
