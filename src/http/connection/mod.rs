//! One connection, from its accept to its close. It is ours; hyper is a guest in it.
//!
//! ```text
//!        HTTP/1 that is not plain, or takes time     over, and bytes unread
//!  Parked ───────────────────────▶ Http1 ─────────────────────▶ Lingering ──▶ closed
//!  │ │  ▲                            │                              ▲
//!  │ │  └──── idle, nothing buffered ┘                              │
//!  └─┘              the preface of HTTP/2                           │
//!  plain ├───────────────────────▶ Http2 ───────────────────────────┤
//!    └──────────── told to go ──────────────────────────────────────┘
//! ```
//!
//! A parked connection may go to sleep, which ends its task and not the connection: see [`deep`](self::idle_set).
//!
//! In the drain each state is polled once before it is told anything, so that what the kernel already holds is seen (P5).

mod http1;
mod http2;
mod http2_streams;
mod hyper_timer;
pub(super) mod idle_handoff;
pub(super) mod idle_set;
mod lingering;
mod parked;
mod stall_timer;
pub(super) mod task;
mod transition;
pub(super) mod worker_context;
