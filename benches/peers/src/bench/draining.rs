//! Latency while draining, and requests lost.
//!
//! An open-loop load of 30 % of the server's capacity runs for seconds of steady state. Then comes
//! the stop, and the load continues until the process is gone. lameduck gets a lame duck delay of 2
//! s; the others have no such setting.
//!
//! In the last tenth of its delay a lame duck sends `Connection: close` with every response, and
//! these clients reconnect to the same server. So each request then costs a connection, too. There
//! are therefore two capacities to take 30 % of. One is for requests that need a new connection
//! each, which a lame duck can serve to the end. The other is for requests on kept connections, and
//! is far higher.

use crate::{
    Result,
    measure::{Sample, percentile, sample},
    open_loop::OpenLoop,
    options::Options,
    peer::Peer,
    server::{Server, Setup},
    wrk::{self, Connections},
};
use std::time::Duration;

const LAME_DUCK: Duration = Duration::from_secs(2);

/// Of the delay: what is left has a close with every response (P4).
const BEFORE_LAST_TENTH: Duration = Duration::from_millis(1800);

/// Fraction of the capacity.
const LOAD: f64 = 0.3;

/// Warm-up before samples count.
const WARM: Duration = Duration::from_millis(500);

/// Longer than any drain of the comparison.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn with_new_connections(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(peer, options, Connections::New)
}

pub fn with_kept_connections(peer: &'static Peer, options: &Options) -> Result<Sample> {
    take(peer, options, Connections::Kept)
}

fn take(peer: &'static Peer, options: &Options, connections: Connections) -> Result<Sample> {
    let variables = [("SHUTDOWN_LAME_DUCK", format!("{}s", LAME_DUCK.as_secs()))];
    let server = Server::start(peer, &Setup { variables: &variables, ..Setup::default() })?;
    wrk::capacity(&server, 1, connections)?;
    let capacity = wrk::capacity(&server, options.seconds, connections)?;
    let rate = capacity * LOAD;
    let mut clients = OpenLoop::new(server.address, &server.exit)?;
    clients.run(rate, WARM)?;
    let began = std::time::Instant::now();
    clients.run(rate, Duration::from_secs(options.seconds))?;
    let asked = server.ask_to_stop()?;
    clients.run(rate, PATIENCE)?;
    let record = clients.finish()?;
    let exit = record
        .exit
        .ok_or_else(|| format!("{} is still there {PATIENCE:?} after its stop", peer.name))?;
    let micros = |from, to| -> Vec<f64> {
        let between = record.responses.iter().filter(|(at, _)| (from..to).contains(at));
        between.map(|(_, took)| took.as_secs_f64() * 1e6).collect()
    };
    let (steady, draining) = (micros(began, asked), micros(asked, exit + WARM));
    let (steady_p99, draining_p99) = (percentile(&steady, 0.99), percentile(&draining, 0.99));
    let mut sample = sample([
        ("rate", rate),
        ("steady_p50_micros", percentile(&steady, 0.5)),
        ("steady_p99_micros", steady_p99),
        ("responses_draining", draining.len() as f64),
        ("lost", record.lost as f64),
        ("stop_millis", (exit - asked).as_secs_f64() * 1e3),
    ]);
    // Fewer samples give no meaningful p99.
    if draining.len() >= 100 {
        sample.insert("draining_p50_micros".to_owned(), percentile(&draining, 0.5));
        sample.insert("draining_p99_micros".to_owned(), draining_p99);
        sample.insert("p99_ratio".to_owned(), draining_p99 / steady_p99);
    }
    if peer.is_lameduck() {
        let early_p99 = percentile(&micros(asked, asked + BEFORE_LAST_TENTH), 0.99);
        sample.insert("early_p99_ratio".to_owned(), early_p99 / steady_p99);
    }
    Ok(sample)
}
