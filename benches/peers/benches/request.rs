//! Cost that the host adds to a request: `cargo bench --bench request`.
//!
//! The same request runs on an in-memory pipe, once through hyper alone and once through a whole
//! lameduck host, with its accounting, its deadline and its context. The difference is the cost per
//! request.

use divan::Bencher;
use hyper::{Request, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use lameduck::{
    Body, Host, Settings,
    lifecycle::Signal,
    os::{CurrentRuntime, TokioClock},
    runtime::{
        Address, ListenAddress, Listener, Network, NoIdlePoller, QuiesceOutcome, Reservation,
        Runtime as HostRuntime, Seed, ServerRole, SignalSource,
    },
};
use lameduck_peers::{HELLO, respond};
use std::{
    future, io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 200)]
fn hyper_alone(bencher: Bencher<'_, '_>) {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let runtime = runtime();
    let service = service_fn(|request: Request<hyper::body::Incoming>| respond(&request));
    runtime.spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
    ask_again_and_again(bencher, &runtime, ours);
}

#[divan::bench(sample_size = 200)]
fn lameduck(bencher: Bencher<'_, '_>) {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let runtime = runtime();
    let (connect, accept) = unbounded_channel();
    connect.send(theirs).expect("the receiver is here");
    let service = service_fn(|request: Request<Body>| respond(&request));
    let host = Host::builder(Settings::default()).serve_hyper(service);
    runtime.block_on(async {
        let runtime = HostRuntime {
            clock: Arc::new(TokioClock::new()),
            network: Pipes(Mutex::new(Some(accept))),
            signals: Silence,
            spawner: CurrentRuntime::new(tokio::runtime::Handle::current()),
            seed: Seed(1),
        };
        tokio::spawn(host.run_in(runtime));
    });
    ask_again_and_again(bencher, &runtime, ours);
}

const PIPE_BYTES: usize = 16 * 1024;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be had")
}

fn ask_again_and_again(bencher: Bencher<'_, '_>, runtime: &Runtime, mut pipe: DuplexStream) {
    bencher.bench_local(|| runtime.block_on(ask(&mut pipe)));
}

async fn ask(pipe: &mut DuplexStream) -> io::Result<usize> {
    pipe.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
    let (mut read, mut buffer) = (0, [0; 1024]);
    while !buffer[..read].ends_with(HELLO.as_bytes()) {
        match pipe.read(&mut buffer[read..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    Ok(read)
}

/// A network of the pipes that are sent to it. The internal server gets none.
#[derive(Debug)]
struct Pipes(Mutex<Option<UnboundedReceiver<DuplexStream>>>);

#[derive(Debug)]
struct End(Option<UnboundedReceiver<DuplexStream>>);

#[derive(Debug)]
struct Silence;

impl Network for Pipes {
    type Listener = End;
    type Reservation = End;

    fn reserve(&self, _: &ListenAddress, role: ServerRole, _: usize) -> io::Result<End> {
        Ok(End(match role {
            ServerRole::Main => self.0.lock().expect("nobody panicked").take(),
            ServerRole::Internal => None,
        }))
    }
}

impl Reservation for End {
    type Listener = Self;

    fn local(&self) -> Address {
        Address::Unix(None)
    }

    async fn listen(self) -> io::Result<Vec<Self>> {
        Ok(vec![self])
    }
}

impl Listener for End {
    type Io = DuplexStream;
    type IdlePoller = NoIdlePoller<DuplexStream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, Address)>> {
        match &mut self.0 {
            Some(pipes) => match pipes.poll_recv(cx) {
                Poll::Ready(Some(pipe)) => Poll::Ready(Ok((pipe, Address::Unix(None)))),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            },
            None => Poll::Pending,
        }
    }

    fn local(&self) -> Address {
        Address::Unix(None)
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        QuiesceOutcome::Open(None)
    }
}

impl SignalSource for Silence {
    async fn recv(&mut self) -> Signal {
        future::pending().await
    }
}
