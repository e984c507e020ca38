//! One connection, from its accept to its close.
//!
//! ```text
//!  accept ──▶ Parked ──────── request for hyper ────────▶ Http1 ──── last response ───┐
//!             │ │  ▲                                       │                          │
//!             │ │  └─────── idle, nothing buffered ────────┘                          │
//!             │ │                                                                     ▼
//!             │ └────── HTTP/2 preface ──────▶ Http2 ── all streams done ──────▶ Lingering
//!             │                                                                   ▲     │
//!             └───── timeout, eviction or drain: final read, then FIN ────────────┘     ▼
//!                                                                                     closed
//! ```
//!
//! - `Opening` precedes `Parked` if there is a PROXY header or a TLS handshake.
//! - `Parked` waits for a request without hyper, serves fast-path requests itself, and waits for
//!   their handlers.
//! - `Http1` and `Http2` are served by hyper. The task of the connection owns hyper's connection,
//!   and takes it apart or drops it.
//! - `Lingering` delivers the last response. It is skipped if nothing can be lost.
//!
//! An idle connection in `Parked` may be suspended: its task ends, and its socket moves into the
//! [idle set](self::idle_set).
//!
//! Each state reads its socket before it acts on the phase. So in the drain a request that the
//! kernel already holds is served (P5b).

mod client_watch;
mod http1;
mod http2;
mod http2_streams;
pub(super) mod idle_handoff;
pub(super) mod idle_set;
mod lingering;
mod opening;
mod parked;
mod partial_timer;
#[cfg(test)]
pub(super) mod polls;
mod stall_timer;
pub(super) mod task;
mod transition;
pub(super) mod worker_context;
