//! The health service of tonic on lameduck.

use lameduck_peers::host;
use tonic::service::Routes;

fn main() -> ! {
    lameduck::run(|| {
        let (_, health) = tonic_health::server::health_reporter();
        Ok(host()?.serve(Routes::new(health).into_axum_router()))
    })
}
