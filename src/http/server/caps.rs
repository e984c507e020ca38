//! The caps on batches, tables and buffers that are constants for users.
//!
//! A simulation sets them small (hidden feature `__caps`), so that short scenarios overflow each of
//! them, and learns which ones were reached. Without the feature they are constants, and every
//! comparison compiles to one with a constant.
#![cfg_attr(
    not(feature = "__caps"),
    allow(unreachable_pub, dead_code, reason = "public only with the feature")
)]

/// The maximum of something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cap {
    id: u8,
    most: u32,
}

impl Cap {
    /// Returns the maximum.
    #[must_use]
    pub const fn get(self) -> usize {
        self.most as usize
    }

    pub(crate) const fn get_u64(self) -> u64 {
        self.most as u64
    }

    pub(crate) const fn get_u32(self) -> u32 {
        self.most
    }

    /// Whether `count` exceeds the maximum.
    #[inline]
    pub(crate) fn is_exceeded_by(self, count: usize) -> bool {
        self.note(count);
        count > self.get()
    }

    /// Whether `count` reaches the maximum.
    #[inline]
    pub(crate) fn is_reached_by(self, count: usize) -> bool {
        self.note(count);
        count >= self.get()
    }

    /// Records for a simulation whether `count` reaches or exceeds the maximum.
    #[inline]
    pub(crate) fn note(self, count: usize) {
        if cfg!(feature = "__caps") && count >= self.get() {
            seen::record(self.id, count > self.get());
        }
    }
}

macro_rules! caps {
    ($($(#[doc = $doc:literal])+ $name:ident = $most:expr;)+) => {
        /// Every cap. See the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct Caps { $($(#[doc = $doc])+ pub $name: Cap),+ }

        #[expect(non_camel_case_types, reason = "the ids are named like the fields")]
        enum Id { $($name),+ }

        impl Caps {
            /// The caps in production.
            pub const DEFAULT: Self = Self { $($name: Cap { id: Id::$name as u8, most: $most }),+ };

            /// The name of each cap.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// Changes one cap. Returns false if none has this name.
            pub fn set(&mut self, name: &str, most: u32) -> bool {
                match name {
                    $(stringify!($name) => self.$name.most = most,)+
                    _ => return false,
                }
                true
            }
        }
    };
}

caps! {
    /// Connections at one time above the limit, while evicted ones close. They use descriptors that
    /// the default limit leaves free.
    evicted_at_once = 8;
    /// Idle connections that one search for connections to evict returns.
    evictable_max = 64;
    /// Connections that are accepted in one turn of a worker's loop, before other events have
    /// theirs.
    accept_batch = 16;
    /// Slots of closed connections that are kept before the table is compacted.
    stale_slots_max = 64;
    /// Idle connections per worker that keep hyper, and that keep the state of the fast path. Above
    /// the limit they are parked at once. It bounds the memory of a burst.
    live_max = 256;
    /// Tasks of a worker above which waiting connections move into the idle set at once, where
    /// fast-path requests are served as well.
    tasks_max = 128;
    /// Expired connections of the idle set that are handled in one turn: other connections have
    /// deadlines, too.
    close_batch = 256;
    /// Reads in one poll of a connection that is closing.
    discards_per_poll = 64;
    /// Requests that are served in one poll of a connection's task, before other tasks have a turn.
    /// hyper serves as many.
    requests_per_poll = 16;
    /// Bytes of one read for the fast path. Nearly every head is shorter, so that one read and one
    /// parse suffice.
    read_buf_bytes = 4096;
    /// Header fields of a fast-path request; one with more is left to hyper.
    fast_path_fields_max = 32;
    /// Bytes of capacity above which a path's allocation is not kept for the next request.
    path_kept_bytes = 256;
    /// Bytes of capacity that the fast path's response buffer keeps between responses.
    out_kept_bytes = 64 * 1024;
    /// Bytes of a response that are sent at once whatever the peer does (the initial congestion
    /// window, RFC 6928). A later reset cannot take them back.
    sent_at_once = 10 * 1460;
    /// Minimum size of hyper's read buffer and of its write buffer for HTTP/1; `header_bytes_max`
    /// if that is larger. When they are full, nothing more is read, or taken from a response.
    http1_buffer = 64 * 1024;
    /// Bytes of a chunk that hyper copies to join them with the head. After a larger chunk the
    /// connection changes to vectored writes. Also the number of unwritten HTTP/2 bytes up to which
    /// the end is not held back.
    copied_bytes = 16 * 1024;
    /// Bytes of a larger chunk that are copied at a time, while the connection does not use
    /// vectored writes.
    chunk_bytes = 64 * 1024;
    /// Empty frames after the promised bytes that are skipped in search of the end.
    empty_frames_max = 16;
    /// Bytes that hyper reads from an HTTP/2 connection in one poll of its task. h2 decodes all
    /// that it can read before hyper takes the first request. So this bounds the requests and
    /// fields that are decoded and not yet checked, and the time that other connections wait
    /// meanwhile.
    read_per_poll = 64 * 1024;
    /// Responses that wait for a flush of an HTTP/2 connection. From this number on each one is
    /// settled as soon as it was written, because a client that reads slowly may never let hyper's
    /// write buffer become empty.
    unflushed_settled_from = 16;
    /// Rounds of `http2_streams_max` requests that are read while the client does not read: it may
    /// reset streams and open others. h2 keeps some 400 bytes of each until it can write again.
    unread_rounds_max = 4;
    /// Bytes of a response body that h2 holds for one stream whose client does not read, and the
    /// chunk that exceeds them.
    http2_send_buffer = 64 * 1024;
    /// Bytes of request bodies that a client may send on an HTTP/2 connection before its handlers
    /// read any, on all streams together and on each one. It is the bandwidth-delay product of
    /// 100 Mbit/s and 80 ms.
    http2_receive_window = 1024 * 1024;
    /// Bytes that an HTTP/2 connection writes per stream before each of its streams has certainly
    /// had a turn. A larger chunk of a response body is passed to h2 in parts.
    stream_turn_bytes = 64 * 1024;
    /// Bytes of the table that a client's HPACK encoder may fill (RFC 7541 §4.2: the default).
    hpack_table = 4 * 1024;
    /// Streams that a client may reset before hyper has taken their requests. One more ends the
    /// connection with ENHANCE_YOUR_CALM (CVE-2023-44487).
    http2_resets_pending_max = 20;
    /// Streams that h2 may reset for errors of the client in the lifetime of a connection. One more
    /// ends it with ENHANCE_YOUR_CALM.
    http2_error_resets_max = 1024;
    /// Connections of the internal server at one time: probes, scrapers and a few people. One more
    /// is accepted nevertheless, and another makes room.
    internal_connections_max = 128;
    /// Streams of an HTTP/2 connection to the internal server. At most this many requests of one
    /// client are served before a probe.
    internal_streams_max = 16;
    /// Aborted requests that the report lists; more are only counted.
    aborts_listed_max = 1_000;
    /// Requests and work that are named while a shutdown waits for them; more are only counted.
    named_max = 10;
    /// Characters of such a name; a longer one is truncated.
    name_chars_max = 120;
    /// Writes of one response without hyper. The rest is left to hyper, whose task gives others a
    /// turn: a client that reads as fast as it is written to never makes a write wait.
    writes_per_poll = 16;
}

#[cfg(feature = "__caps")]
impl Caps {
    /// Returns the names of the caps that were reached on this thread since the last call, each
    /// with whether it was exceeded.
    #[must_use]
    pub fn take_seen() -> Vec<(&'static str, bool)> {
        let seen = seen::take();
        let name = |(id, seen): (usize, seen::Seen)| match seen {
            seen::Seen::Less => None,
            seen::Seen::Reached => Some((Self::NAMES[id], false)),
            seen::Seen::Exceeded => Some((Self::NAMES[id], true)),
        };
        seen.into_iter().enumerate().take(Self::NAMES.len()).filter_map(name).collect()
    }
}

/// Which caps were reached on this thread. A simulated world has one thread.
#[cfg(feature = "__caps")]
mod seen {
    use std::cell::Cell;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(super) enum Seen {
        Less,
        Reached,
        Exceeded,
    }

    const NOTHING: [Seen; 64] = [Seen::Less; 64];

    thread_local! {
        static SEEN: Cell<[Seen; 64]> = const { Cell::new(NOTHING) };
    }

    pub(super) fn record(id: u8, is_exceeded: bool) {
        let mut all = SEEN.get();
        let now = if is_exceeded { Seen::Exceeded } else { Seen::Reached };
        if let Some(seen) = all.get_mut(usize::from(id)).filter(|seen| **seen < now) {
            *seen = now;
            SEEN.set(all);
        }
    }

    pub(super) fn take() -> [Seen; 64] {
        SEEN.replace(NOTHING)
    }
}

#[cfg(not(feature = "__caps"))]
mod seen {
    pub(super) const fn record(_: u8, _: bool) {}
}
