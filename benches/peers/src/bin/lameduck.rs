//! lameduck with a hyper service: the host with its defaults and all of its promises. It has no
//! lame duck delay, so that its drain is compared with the others' drains.

use hyper::service::service_fn;
use lameduck::Body;
use lameduck_peers::{host, respond};

fn main() -> ! {
    let service = service_fn(|request: http::Request<Body>| respond(&request));
    lameduck::run(|| Ok(host()?.serve_hyper(service)))
}
