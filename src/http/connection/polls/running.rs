//! The request with which a worker is busy. It is named as the cause if the worker is blocked.

use super::{HTTP2_FIRST, PREFACE, world::World};

/// Opens no window for the responses.
const NO_WINDOW: &[u8] = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00";

/// A field `host: b`, which differs from `:authority`.
const OTHER_HOST: &[u8] = b"\x0f\x17\x01b";

/// A client that received nothing of the host's own error response had its request count as running
/// meanwhile. When another handler blocked the worker, this request was named as the cause (P13).
#[tokio::test]
async fn a_request_that_runs_no_handler_is_not_running() {
    const NO_FUTURE: &[u8] = b"GET /no-future HTTP/1.1\r\nhost: a\r\n\r\n";
    for (fields, status) in [(OTHER_HOST.to_vec(), 400), (b"\x00\x01a\x01b".repeat(101), 431)] {
        let mut world = World::new();
        world.start().await;
        world.send(&[PREFACE, NO_WINDOW].concat()).await;
        let mut request = [HTTP2_FIRST, &fields].concat();
        let length = u16::try_from(request.len() - 9).unwrap();
        request[1..3].copy_from_slice(&length.to_be_bytes());
        world.send(&request).await;
        assert_eq!(world.running(), None, "{status}");
        assert!(!world.has_ended(), "{status}");
    }
    let mut world = World::new();
    world.start().await;
    world.wire().stop_receiving(0);
    world.send(NO_FUTURE).await;
    assert_eq!(world.requests().panicked, 1);
    assert_eq!(world.running(), None);
}
