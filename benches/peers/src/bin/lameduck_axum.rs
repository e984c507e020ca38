//! lameduck with an axum router: the result of changing one line of an app that uses `axum::serve`.

use lameduck_peers::{host, router};

fn main() -> ! {
    lameduck::run(|| Ok(host()?.serve(router())))
}
