//! Instructions a request, by callgrind: the difference between a long run and a short one, so that the start costs nothing.

use crate::server::Server;
use lameduck_peers::HELLO;
use std::{
    env,
    error::Error,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

const CONNECTIONS: usize = 64;
const ROUNDS: [usize; 2] = [20, 120];

/// In the whole process, kernel excluded.
pub fn measure(name: &str) -> Result<f64, Box<dyn Error>> {
    let [short, long] = ROUNDS;
    let instructions = run(name, long)? - run(name, short)?;
    Ok(instructions / ((long - short) * CONNECTIONS) as f64)
}

fn run(name: &str, rounds: usize) -> Result<f64, Box<dyn Error>> {
    let out = env::temp_dir().join(format!("lameduck-bench-{name}-{rounds}.callgrind"));
    let wrapper = ["valgrind".to_owned(), "--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", out.display())];
    let server = Server::start(name, &wrapper)?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let mut buffer = [0; 4096];
    for _ in 0..rounds {
        for stream in &mut connections {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        }
        for stream in &mut connections {
            let mut read = 0;
            while !buffer[..read].ends_with(HELLO.as_bytes()) {
                read += stream.read(&mut buffer[read..])?;
            }
        }
    }
    drop(connections);
    server.ask_to_stop()?;
    server.wait()?;
    let text = fs::read_to_string(&out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    Ok(total.ok_or("callgrind counted nothing")?.trim().parse()?)
}
