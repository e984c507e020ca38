//! What three servers lose in a deploy: the same service, the same clients, three platforms.
//!
//! `just servers` prints the table for 200 deploys, `just servers 20` for 20.

mod table;

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let deploys = std::env::args().nth(1).unwrap_or_else(|| "200".to_owned());
    let deploys = deploys.parse().map_err(|error| {
        io::Error::other(format!("{deploys} is not a number of deploys: {error}"))
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", table::HEAD)?;
    for (platform, deploy) in table::platforms() {
        for (server, losses) in table::rows(deploy, 0..deploys) {
            writeln!(out, "{}", table::line(platform, server, &losses))?;
            out.flush()?;
        }
    }
    Ok(())
}
