//! What clients of HTTP/2 send in other ways than those of HTTP/1.

use super::{PREFACE, world::World};

/// Returns a GET of `/cookies` on stream 1 with these fields of the name `cookie`.
fn with_cookies(crumbs: &[&str]) -> Vec<u8> {
    let mut block = b"\x82\x86\x04\x08/cookies\x01\x01a".to_vec();
    for crumb in crumbs {
        block.extend_from_slice(&[0x0f, 0x11, u8::try_from(crumb.len()).unwrap()]);
        block.extend_from_slice(crumb.as_bytes());
    }
    let [_, _, high, low] = u32::try_from(block.len()).unwrap().to_be_bytes();
    [PREFACE, &[0, high, low, 1, 5, 0, 0, 0, 1], &block].concat()
}

// A client of HTTP/2 may split its cookies. The handler got the parts as separate fields, and each
// counted against the limit on fields: the request was refused (RFC 9113 §8.2.3).
#[tokio::test]
async fn the_cookies_of_a_client_are_joined() {
    let many = ["c=d"; 120];
    for (crumbs, joined) in [
        (&["a=1", "b=2"][..], "a=1; b=2".to_owned()),
        (&["a=1"], "a=1".to_owned()),
        (&[], String::new()),
        (&many, many.join("; ")),
    ] {
        let mut world = World::new();
        world.start().await;
        world.send(&with_cookies(crumbs)).await;
        assert_eq!(world.requests().finished, 1, "{crumbs:?}");
        let written = world.wire().written.clone();
        assert!(written.ends_with(joined.as_bytes()), "{}", written.escape_ascii());
    }
}
