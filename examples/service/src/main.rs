//! The process: settings, log, and the exit code.

use lameduck::{
    Host, RunOptions, Settings,
    cli::logging::{self, LogFormat},
};
use orders::Orders;

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        // The environment overrides the settings in code.
        let settings = Settings::default().app_version(env!("CARGO_PKG_VERSION")).with_env()?;
        Ok(orders::host(Host::builder(settings).systemd().profiles(), &Orders::default()))
    })
}
