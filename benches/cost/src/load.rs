//! The kinds of requests that are counted.

use crate::serve::Server;

/// Requests of one kind, and the two servers that are compared.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) on: Server,
    pub(crate) without: Server,
    pub(crate) request: Request,
    /// Requests that are written at once on a connection.
    pub(crate) at_once: usize,
}

pub(crate) enum Request {
    /// Bytes of HTTP/1.
    Http1(&'static str),
    /// The path of a GET over HTTP/2.
    Http2(&'static str),
}

const GET: Load = Load {
    name: "get",
    what: "a plain `GET`",
    on: Server::Lameduck,
    without: Server::Hyper,
    request: Request::Http1("GET / HTTP/1.1\r\nhost: bench\r\n\r\n"),
    at_once: 1,
};

const AXUM: Load = Load { on: Server::LameduckAxum, without: Server::Axum, ..GET };

pub(crate) const LOADS: [Load; 9] = [
    GET,
    Load { name: "pipelined", what: "– one of 16 that are pipelined", at_once: 16, ..GET },
    Load {
        name: "post",
        what: "a `POST` with a body of 11 bytes, which is read",
        request: Request::Http1(
            "POST /read HTTP/1.1\r\nhost: bench\r\ncontent-length: 11\r\n\r\nhello world",
        ),
        ..GET
    },
    Load {
        name: "waits",
        what: "a handler that waits once",
        request: Request::Http1("GET /waits HTTP/1.1\r\nhost: bench\r\n\r\n"),
        ..GET
    },
    Load {
        name: "large",
        what: "a response of 64 KB",
        request: Request::Http1("GET /large HTTP/1.1\r\nhost: bench\r\n\r\n"),
        ..GET
    },
    Load {
        name: "http2",
        what: "an HTTP/2 stream, one of 32 at once",
        request: Request::Http2("/"),
        at_once: 32,
        ..GET
    },
    Load { name: "axum", what: "axum's router, a plain `GET`", ..AXUM },
    Load {
        name: "axum_json",
        what: "axum's `Json`, read and written",
        request: Request::Http1(
            "POST /json HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             content-length: 17\r\n\r\n[\"hello\",\"world\"]",
        ),
        ..AXUM
    },
    Load {
        name: "axum_http2",
        what: "axum's router, an HTTP/2 stream",
        request: Request::Http2("/"),
        at_once: 32,
        ..AXUM
    },
];

impl Load {
    /// Connections that carry the load. HTTP/2 has few.
    pub(crate) const fn connections(&self) -> usize {
        if self.at_once == 1 { 64 } else { 8 }
    }
}
