//! The fuzz bodies, as plain functions: everything that parses bytes from the network, and the
//! settings.
//!
//! Each takes any bytes and must return; a broken promise is a panic that names it.
//! `tests/simulation/fuzz.rs` replays the corpus and a few hundred drawn inputs with the stable
//! toolchain; `fuzz/targets` passes the same functions to cargo-fuzz.

mod client_time;
mod connection;
mod life;
mod pipe;
mod same;
mod settings;

pub use connection::{http1, http2, raw};
pub use life::lifecycle;
pub use same::same;
pub use settings::settings;

/// A function that takes any bytes, and panics if they break a promise.
pub type FuzzBody = fn(&[u8]);

/// Every body with its name, which is also the name of its target and of its folder in the corpus.
pub const BODIES: &[(&str, FuzzBody)] = &[
    ("http1", http1),
    ("http2", http2),
    ("raw", raw),
    ("same", same),
    ("lifecycle", lifecycle),
    ("settings", settings),
];

/// Takes bytes off the front; past the end it yields zeros.
pub(crate) struct Draw<'a>(pub(crate) &'a [u8]);

impl Draw<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
