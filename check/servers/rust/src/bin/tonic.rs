//! tonic's server with other routes, which its `Routes` take from an axum router.

use lameduck_check_servers::{DRAIN, address, router, stopped};
use tonic::{
    service::Routes,
    transport::{Error, Server},
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    Server::builder()
        .accept_http1(true)
        .timeout(DRAIN)
        .add_routes(Routes::from(router()))
        .serve_with_shutdown(address(), stopped())
        .await
}
