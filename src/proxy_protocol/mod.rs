//! The PROXY protocol: a connection begins with a header that has the address of the proxy's
//! client.
//!
//! | file | its job |
//! |---|---|
//! | [`network`] | a network on whose addresses a header may be required |
//! | [`stream`] | one connection, which reads its header |
//! | [`header`] | the header: versions 1 and 2 |
//!
//! TLS comes after the header: its network wraps this one.

mod header;
mod network;
mod stream;

pub(crate) use network::ProxyNetwork;
