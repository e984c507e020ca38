//! lameduck with a hyper service and TLS, by `APP_TLS_CERT` and `APP_TLS_KEY`.

use hyper::service::service_fn;
use lameduck::Body;
use lameduck_peers::{host, respond};

fn main() -> ! {
    let service = service_fn(|request: http::Request<Body>| respond(&request));
    lameduck::run(|| Ok(host()?.serve_hyper(service)))
}
