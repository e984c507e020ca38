//! The `Date` header (RFC 9110 §6.6.1), from an injected clock, formatted once per second.

use crate::lifecycle::Moment;
use http::HeaderValue;
use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

thread_local! {
    /// The last second and its text. It depends on the second alone, so sharing it between
    /// simulations leaks nothing.
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

/// A cached `Date` value, valid until the end of its second.
#[derive(Debug)]
pub(crate) struct CachedDate {
    text: HeaderValue,
    until: Moment,
}

impl CachedDate {
    pub(crate) const fn unknown() -> Self {
        Self { text: HeaderValue::from_static(""), until: Moment::EPOCH }
    }

    /// Returns the date at `now`. Calls `wall` for the wall-clock time if the cached value has
    /// expired.
    pub(crate) fn at(&mut self, now: Moment, wall: impl FnOnce() -> SystemTime) -> &[u8] {
        if now >= self.until {
            let wall = wall();
            let nanos_of_second =
                wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            self.text = header(wall);
            self.until = now + Duration::from_nanos(u64::from(1_000_000_000 - nanos_of_second));
        }
        self.text.as_bytes()
    }
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

    #[test]
    fn the_wall_clock_is_read_again_when_the_second_ends() {
        let mut date = CachedDate::unknown();
        let now = Moment::from_nanos(5_000_000_000);
        let wall = UNIX_EPOCH + Duration::from_millis(784_111_777_400);
        assert_eq!(date.at(now, || wall), b"Sun, 06 Nov 1994 08:49:37 GMT");
        let last = now + Duration::from_nanos(599_999_999);
        assert_eq!(
            date.at(last, || unreachable!("its second is not over")),
            b"Sun, 06 Nov 1994 08:49:37 GMT"
        );
        let next = now + Duration::from_millis(600);
        assert_eq!(
            date.at(next, || wall + Duration::from_millis(600)),
            b"Sun, 06 Nov 1994 08:49:38 GMT"
        );
    }
}
