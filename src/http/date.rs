//! The `Date` header (RFC 9110 §6.6.1), from an injected clock whose calendar is its own, formatted once a second.

use http::HeaderValue;
use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

thread_local! {
    /// The last second and its text. A function of the second alone, so sharing it between simulations leaks nothing.
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
}

pub(crate) fn header(wall: SystemTime) -> HeaderValue {
    let second = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            if let Ok(value) = HeaderValue::try_from(date) {
                (*last, *text) = (second, value);
            }
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_follows_the_clock_second_by_second() {
        let at = |seconds| header(UNIX_EPOCH + Duration::from_millis(seconds));
        assert_eq!(at(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(784_111_778_000), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
