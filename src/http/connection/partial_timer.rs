//! The time that an HTTP/2 client may take for a frame or a header block that it has begun.

use crate::http::exchange::{connection_state::ConnectionState, http2_input::Partial};
use crate::lifecycle::Moment;
use std::time::Duration;

/// The incomplete frame or header block: its kind, its identity, and when it was first seen
/// incomplete.
#[derive(Debug, Default)]
pub(super) struct PartialTimer(Option<(Partial, u64, Moment)>);

impl PartialTimer {
    /// Returns when the frame or header block that the client has begun must be complete. `NEVER`
    /// if it has begun none, or is not read from. A body may arrive slowly: in a DATA frame the
    /// timeout restarts with each byte.
    pub(super) fn until(&mut self, connection: &ConnectionState, now: Moment) -> Moment {
        let (io, limits) = (&connection.io, &connection.server().config.limits);
        let partial = io.inflow.awaited();
        let (unit, wait) = match partial {
            // Its time goes on while it is not read from.
            Partial::None if io.inflow.has_begun() => return Moment::NEVER,
            Partial::None => (0, Duration::MAX),
            Partial::Head => (io.inflow.whole(), limits.header_timeout),
            Partial::Data => (io.read(), limits.body_timeout.max(limits.header_timeout)),
        };
        let since = match self.0 {
            Some((last, of, since)) if (last, of) == (partial, unit) => since,
            _ => now,
        };
        self.0 = (partial != Partial::None).then_some((partial, unit, since));
        since + wait
    }

    /// Returns since when a frame that is no part of a body, or a header block, is incomplete.
    pub(super) fn head_since(&self) -> Option<Moment> {
        self.0.filter(|(partial, ..)| *partial == Partial::Head).map(|(.., since)| since)
    }
}
