//! Ten thousand idle connections: their memory, and how fast they are closed at a stop.

use crate::{
    Result, client, identity,
    measure::{Sample, sample},
    options::Options,
    peer::{Peer, Speaks},
    server::{Server, Setup},
    watch::Watch,
};
use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// History of each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// It got one response.
    ServedOnce,
    /// It never sent a byte.
    Byteless,
}

pub fn served_once(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(peer, options.connections, History::ServedOnce)
}

pub fn byteless(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(peer, options.connections, History::Byteless)
}

/// Connects, and gets one response, through TLS if the server speaks it. Of a client of TLS only
/// its socket is kept: it neither reads nor writes again.
fn served(peer: &Peer, address: SocketAddr) -> Result<TcpStream> {
    if peer.speaks == Speaks::Tls {
        identity::served_once(address)
    } else {
        Ok(client::served_once(address)?)
    }
}

/// Idle time before the memory is read.
const IDLE: Duration = Duration::from_secs(3);

pub fn take(peer: &'static Peer, connections: usize, history: History) -> Result<Sample> {
    let server = Server::start(peer, &Setup::default())?;
    // One-time setup of the first connection must not count as the cost of an idle connection.
    drop(served(peer, server.address)?);
    thread::sleep(Duration::from_millis(300));
    let before = server.resident()?;
    let open = || match history {
        History::ServedOnce => served(peer, server.address),
        History::Byteless => Ok(client::connect(server.address)?),
    };
    let open = (0..connections).map(|_| open()).collect::<Result<Vec<TcpStream>>>()?;
    thread::sleep(IDLE);
    let per_connection = |bytes: f64| (bytes - before) / connections as f64;
    let (resident, peak) = (server.resident()?, server.resident_peak()?);
    let mut sample = sample([
        ("bytes", per_connection(resident)),
        ("peak_bytes", per_connection(peak)),
        ("resident", resident - before),
    ]);
    if history == History::Byteless && !peer.closes_byteless {
        return Ok(sample);
    }
    let watch = Watch::new(&open, &server.exit)?;
    let asked = server.ask_to_stop()?;
    let seen = watch.wait()?;
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    for (name, span) in [
        ("close_millis", seen.closed - asked),
        ("exit_millis", seen.exited.saturating_duration_since(seen.closed)),
        ("stop_millis", seen.exited - asked),
    ] {
        sample.insert(name.to_owned(), millis(span));
    }
    Ok(sample)
}
