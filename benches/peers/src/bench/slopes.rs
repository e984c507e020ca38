//! How cost grows, measured at several sizes each: the cost of a connection, of a worker, and of a
//! stop with N connections.

use crate::{
    Result, client,
    idle::{self, History},
    measure::{Sample, median_of},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
    start,
};
use std::{thread, time::Duration};

/// Selects one server of each kind.
pub fn suits(peer: &Peer) -> bool {
    ["lameduck", "bare", "axum", "nginx"].contains(&peer.name)
}

/// The tables show resident memory for the last three, and the stop for the first two and the last.
const CONNECTIONS: [usize; 4] = [100, 1_000, 5_000, 10_000];

/// Measures resident bytes, and milliseconds from the stop to the exit, with N idle connections.
pub fn connections(peer: &'static Peer, options: &Options) -> Result<Sample> {
    let mut found = Sample::new();
    for connections in
        CONNECTIONS.into_iter().filter(|connections| *connections <= options.connections)
    {
        let idle = idle::take(peer, connections, History::ServedOnce)?;
        for number in ["resident", "close_millis", "stop_millis"] {
            found.insert(format!("{number}_{connections}"), idle[number]);
        }
    }
    Ok(found)
}

/// All on one core: this measures the cost of a worker, not its benefit.
const WORKERS: [usize; 3] = [1, 2, 4];

const STARTS: usize = 10;

/// Measures resident bytes and milliseconds to the first response, with N workers.
pub fn workers(peer: &'static Peer, _: &Options) -> Result<Sample> {
    let mut found = Sample::new();
    for workers in WORKERS {
        let variables = [("APP_WORKERS", workers.to_string())];
        let setup = Setup { variables: &variables, ..Setup::default() };
        let starts = (0..STARTS).map(|_| start::once(peer, &setup)).collect::<Result<Vec<_>>>()?;
        found.insert(format!("start_millis_{workers}"), median_of(&starts));
        let resident = (0..STARTS).map(|_| resident(peer, &setup)).collect::<Result<Vec<_>>>()?;
        found.insert(format!("resident_{workers}"), median_of(&resident));
    }
    Ok(found)
}

/// Returns the resident bytes once every worker has served a request.
fn resident(peer: &'static Peer, setup: &Setup<'_>) -> Result<f64> {
    let server = Server::start(peer, setup)?;
    for _ in 0..CLIENTS {
        drop(client::served_once(server.address)?);
    }
    thread::sleep(Duration::from_millis(100));
    Ok(server.resident()?)
}

/// Enough connections that the kernel spreads them over all workers.
const CLIENTS: usize = 32;
