//! Time to first response: from the exec of the server to its first response, with a client that
//! tries to connect without a pause.

use crate::{
    Result, client,
    measure::{Sample, median_of, sample},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
};

const STARTS: usize = 10;

pub fn first_response(peer: &'static Peer, _: &Options) -> Result<Sample> {
    let starts = (0..STARTS).map(|_| once(peer, &Setup::default())).collect::<Result<Vec<_>>>()?;
    Ok(sample([("millis", median_of(&starts))]))
}

/// Returns the time of one start in milliseconds.
pub fn once(peer: &'static Peer, setup: &Setup<'_>) -> Result<f64> {
    let mut server = Server::spawn(peer, setup)?;
    let mut stream = loop {
        match client::connect(server.address) {
            Ok(stream) => break stream,
            Err(_) => server.check_start()?,
        }
    };
    client::ask(&mut stream, client::REQUEST)?;
    Ok(server.began.elapsed().as_secs_f64() * 1e3)
}
