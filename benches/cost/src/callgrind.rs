//! Counts the instructions of a server (Debian's package `valgrind`).

use crate::{Result, client::Client, load::Load, serve::Server};
use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Under valgrind a start takes seconds.
const START_TIME: Duration = Duration::from_secs(60);

/// Rounds of the short run and of the long one.
const ROUNDS: [usize; 2] = [10, 40];

/// Returns the instructions of one request: those of the whole process, in user space.
pub(crate) fn instructions(server: Server, load: &Load) -> Result<f64> {
    let [short, long] = ROUNDS;
    let requests = (long - short) * load.connections() * load.at_once;
    Ok((count(server, load, long)? - count(server, load, short)?) / requests as f64)
}

fn count(server: Server, load: &Load, rounds: usize) -> Result<f64> {
    let out = env::temp_dir().join(format!("lameduck-cost-{}", std::process::id()));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]);
    let process = Process::start(command.arg(env::current_exe()?), server)?;
    let connect = || Client::connect(process.address, load);
    let mut clients = (0..load.connections()).map(|_| connect()).collect::<io::Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for client in &mut clients {
            client.send()?;
        }
        for client in &mut clients {
            client.receive()?;
        }
    }
    drop(clients);
    process.stop()?;
    let text = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind counted nothing")?.trim().parse()?)
}

/// A server process.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts `server` by a command that ends with this executable. Waits until it accepts.
    pub(crate) fn start(command: &mut Command, server: Server) -> Result<Self> {
        // No other process takes the port in between: ephemeral ports are assigned in turn.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        command.args(["serve", server.name(), &address.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let program: PathBuf = command.get_program().into();
        let child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        let mut process = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("{} did not start: {status}", server.name()).into());
            }
            if began.elapsed() > START_TIME {
                return Err(format!("{} did not start in {START_TIME:?}", server.name()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, unless the measurement failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
