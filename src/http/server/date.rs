//! The `Date` header (RFC 9110 §6.6.1), from an injected clock, formatted once per second.

use crate::lifecycle::Moment;
use bytes::Bytes;
use http::HeaderValue;
use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A second, and its date in two forms.
struct Second {
    begin: SystemTime,
    end: SystemTime,
    value: HeaderValue,
    /// The field and the empty line after it, with which a head ends.
    end_of_head: Bytes,
}

thread_local! {
    /// The last second. It depends on nothing else, so sharing it between simulations leaks
    /// nothing.
    static LAST: RefCell<Second> = const { RefCell::new(Second {
        begin: UNIX_EPOCH,
        end: UNIX_EPOCH,
        value: HeaderValue::from_static(""),
        end_of_head: Bytes::new(),
    }) };
}

fn with_second<T>(wall: SystemTime, read: impl FnOnce(&Second) -> T) -> T {
    LAST.with_borrow_mut(|last| {
        if wall < last.begin || wall >= last.end {
            last.renew(wall);
        }
        read(last)
    })
}

impl Second {
    #[cold]
    fn renew(&mut self, wall: SystemTime) {
        let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let begin = UNIX_EPOCH + Duration::from_secs(since_epoch);
        let date = httpdate::fmt_http_date(begin);
        let end_of_head = format!("date: {date}\r\n\r\n").into();
        if let Ok(value) = HeaderValue::try_from(date) {
            *self = Self { begin, end: begin + Duration::from_secs(1), value, end_of_head };
        }
    }
}

pub(crate) fn header(wall: SystemTime) -> HeaderValue {
    with_second(wall, |second| second.value.clone())
}

/// A cached end of a head with its `Date`, valid until the end of its second.
#[derive(Debug)]
pub(crate) struct CachedDate {
    end_of_head: Bytes,
    until: Moment,
}

impl CachedDate {
    pub(crate) const fn unknown() -> Self {
        Self { end_of_head: Bytes::new(), until: Moment::EPOCH }
    }

    /// Returns the end of a head at `now`: the date and an empty line. Calls `wall` for the
    /// wall-clock time if the cached value has expired.
    pub(crate) fn at(&mut self, now: Moment, wall: impl FnOnce() -> SystemTime) -> &[u8] {
        if now >= self.until {
            let wall = wall();
            let nanos_of_second =
                wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            self.end_of_head = with_second(wall, |second| second.end_of_head.clone());
            self.until = now + Duration::from_nanos(u64::from(1_000_000_000 - nanos_of_second));
        }
        &self.end_of_head
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
        assert_eq!(date.at(now, || wall), b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
        let last = now + Duration::from_nanos(599_999_999);
        assert_eq!(
            date.at(last, || unreachable!("its second is not over")),
            b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
        );
        let next = now + Duration::from_millis(600);
        assert_eq!(
            date.at(next, || wall + Duration::from_millis(600)),
            b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n\r\n"
        );
    }
}
