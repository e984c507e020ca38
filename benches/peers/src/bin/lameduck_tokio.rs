//! lameduck with an axum router in tokio's multi-threaded runtime, by `Host::run`.

use lameduck_peers::{cores, host, router};
use std::{error::Error, process::exit};
use tokio::runtime::Builder;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = Builder::new_multi_thread().worker_threads(cores().get()).enable_all().build()?;
    let host = host()?.serve(router());
    let report = runtime.block_on(host.run());
    exit(report.code().into())
}
