//! Instructions per request, counted by callgrind. It is the difference between a long run and a
//! short one, so that the start does not count.

use crate::{
    Result, client,
    measure::{Sample, sample},
    options::Options,
    peer::Peer,
    server::{Server, Setup},
};
use std::{env, fs, io, io::Write as _, net::TcpStream, os::unix::fs::PermissionsExt as _};

const CONNECTIONS: usize = 64;
const ROUNDS: [usize; 2] = [20, 120];

/// Counts user-space instructions of the whole process and its children.
pub fn take(peer: &'static Peer, _: &Options) -> Result<Sample> {
    let [short, long] = ROUNDS;
    let instructions = run(peer, long)? - run(peer, short)?;
    Ok(sample([("per_request", instructions / ((long - short) * CONNECTIONS) as f64)]))
}

fn run(peer: &'static Peer, rounds: usize) -> Result<f64> {
    let directory =
        env::temp_dir().join(format!("lameduck-bench-callgrind-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    // nginx runs its workers as another user.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    let out = format!("--callgrind-out-file={}/%p", directory.display());
    let wrapper = ["valgrind", "--tool=callgrind", "--trace-children=yes", &out].map(str::to_owned);
    let server = Server::start(peer, &Setup { wrapper: &wrapper, ..Setup::default() })?;
    let mut connections = (0..CONNECTIONS)
        .map(|_| client::connect(server.address))
        .collect::<io::Result<Vec<TcpStream>>>()?;
    for _ in 0..rounds {
        for stream in &mut connections {
            stream.write_all(client::REQUEST)?;
        }
        for stream in &mut connections {
            client::hear(stream)?;
        }
    }
    drop(connections);
    server.ask_to_stop()?;
    server.wait()?;
    let total = fs::read_dir(&directory)?
        .map(|file| counted(&fs::read_to_string(file?.path())?))
        .sum::<Result<f64>>();
    fs::remove_dir_all(&directory)?;
    total
}

fn counted(text: &str) -> Result<f64> {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    Ok(total.ok_or("callgrind (Debian's package `valgrind`) counted nothing")?.trim().parse()?)
}
