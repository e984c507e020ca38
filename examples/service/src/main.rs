//! The process: settings, log, and the exit code.

use lameduck::{
    Host, RunOptions, Settings,
    cli::logging::{self, LogError, LogFormat},
};
use orders::Orders;

fn main() -> Result<(), LogError> {
    let log = logging::install(LogFormat::Auto, None)?;
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let settings = Settings::from_env()?.app_version(env!("CARGO_PKG_VERSION"));
        Ok(orders::host(Host::builder(settings).systemd().profiles(), &Orders::default()))
    })
}
