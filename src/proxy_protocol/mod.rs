//! The PROXY protocol: a connection begins with a header that has the address of the proxy's
//! client.
//!
//! | file | its job |
//! |---|---|
//! | [`listener`] | the listeners of an address, on which a header may be required |
//! | [`stream`] | one connection, which reads its header |
//! | [`header`] | the header: versions 1 and 2 |
//!
//! TLS comes after the header: its listeners wrap these.

mod header;
mod listener;
mod stream;

pub(crate) use listener::ProxyReservation;
