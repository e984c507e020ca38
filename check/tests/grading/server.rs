//! A little server that loses nothing, on threads and without a library. With a fault it does one
//! thing wrong. The first word of a fault is the name of the scenario that must see it.

use crate::connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::{
    consts::{SIGPIPE, SIGTERM},
    flag,
    low_level::pipe,
};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::net::UnixStream},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// How long new connections are served after the stop.
pub(crate) const LAME_DUCK: Duration = Duration::from_millis(180);
/// Time from the stop until what is left is cut.
pub(crate) const DRAIN: Duration = Duration::from_millis(1800);
pub(crate) const MS: Duration = Duration::from_millis(1);
/// How often a thread looks whether something is due.
pub(crate) const TICK: Duration = Duration::from_millis(4);

/// How long a thread waits for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Tick,
    /// Until the stop; from then on a tick.
    Serving,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    Unused,
    Idle,
    Handler,
    Upload,
    Writing,
    Upgraded,
    Http2,
}

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) fault: String,
    stop: Arc<AtomicBool>,
    /// Readable from the stop on.
    stop_pipe: UnixStream,
    begin: Instant,
    /// Milliseconds from `begin` to the stop, or -1.
    stopped: AtomicI64,
    activities: [AtomicUsize; 7],
    /// The reader of standard output is gone.
    pub(crate) log_is_dead: AtomicBool,
    log: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

impl Server {
    pub(crate) fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    /// Returns whether this start of the server comes after the last one that becomes ready.
    fn is_never_ready(&self) -> bool {
        let number = |text: &str| text.parse::<u32>().unwrap();
        let ready = self.fault.strip_prefix("not ready after ").map_or(u32::MAX, number);
        std::env::var("START").is_ok_and(|start| number(&start) > ready)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// The time since the stop, or zero.
    pub(crate) fn since_stop(&self) -> Duration {
        if !self.is_stopping() {
            return Duration::ZERO;
        }
        let now = i64::try_from(self.begin.elapsed().as_millis()).unwrap();
        let _ = self.stopped.compare_exchange(-1, now, SeqCst, SeqCst);
        Duration::from_millis(u64::try_from(now - self.stopped.load(SeqCst)).unwrap_or(0))
    }

    /// Waits until the socket is readable. Returns whether it is.
    pub(crate) fn wait(&self, socket: impl AsFd, wait: Wait) -> bool {
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        let is_short = wait == Wait::Tick || self.is_stopping();
        let sockets = [socket.as_fd(), self.stop_pipe.as_fd()];
        let mut polled = sockets.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let count = if is_short { 1 } else { 2 };
        let is_polled = poll(&mut polled[..count], is_short.then_some(&tick)).is_ok();
        is_polled && !polled[0].revents().is_empty()
    }

    pub(crate) fn enter(&self, activity: Activity) {
        self.activities[activity as usize].fetch_add(1, SeqCst);
    }

    pub(crate) fn leave(&self, activity: Activity) {
        self.activities[activity as usize].fetch_sub(1, SeqCst);
    }

    fn open(&self) -> usize {
        self.activities.iter().map(|count| count.load(SeqCst)).sum()
    }

    fn is_held(&self) -> bool {
        [
            ("exit/silent", Activity::Unused),
            ("exit/idle", Activity::Idle),
            ("exit/request", Activity::Handler),
            ("endless page", Activity::Handler),
            ("exit/upload", Activity::Upload),
            ("exit/reader", Activity::Writing),
            ("exit/upgraded", Activity::Upgraded),
            ("exit/http2", Activity::Http2),
        ]
        .into_iter()
        .any(|(fault, activity)| {
            self.has(fault) && self.activities[activity as usize].load(SeqCst) > 0
        })
    }

    /// Logs a request, as the faults of the log do it.
    pub(crate) fn log(&self) {
        if self.has("log/stuck-serves") {
            let _ = io::stdout().write_all(b"a request\n");
            let _ = io::stdout().flush();
        }
        if let Some(log) = &*self.log.lock().unwrap() {
            let _ = log.send(());
        }
    }
}

/// The whole run of the process.
pub(crate) fn run(port: u16, probe_port: u16, fault: &str) -> ! {
    let stop = Arc::new(AtomicBool::new(false));
    let (stop_pipe, signalled) = UnixStream::pair().unwrap();
    stop_pipe.set_nonblocking(true).unwrap();
    if fault == "signal/during-start" {
        // A signal that comes during the start is forgotten.
        let forgotten = Arc::new(AtomicBool::new(false));
        let id = flag::register(SIGTERM, forgotten).unwrap();
        thread::sleep(Duration::from_millis(60));
        flag::register(SIGTERM, stop.clone()).unwrap();
        signal_hook::low_level::unregister(id);
    }
    if !(fault == "signal/pid-1" && process::id() == 1) {
        if fault == "signal/twice" {
            flag::register_conditional_shutdown(SIGTERM, 1, stop.clone()).unwrap();
        }
        flag::register(SIGTERM, stop.clone()).unwrap();
        pipe::register(SIGTERM, signalled).unwrap();
    }
    let server = Arc::new(Server {
        fault: fault.to_owned(),
        stop,
        stop_pipe,
        begin: Instant::now(),
        stopped: AtomicI64::new(-1),
        activities: Default::default(),
        log_is_dead: AtomicBool::new(false),
        log: Mutex::new(None),
    });
    if fault == "log/dead" {
        let (log, lines) = std::sync::mpsc::channel();
        *server.log.lock().unwrap() = Some(log);
        let server = server.clone();
        thread::spawn(move || {
            for () in lines {
                let written =
                    io::stdout().write_all(b"a request\n").and_then(|()| io::stdout().flush());
                server.log_is_dead.fetch_or(written.is_err(), SeqCst);
            }
        });
    }
    if fault == "loud start" {
        // More than a pipe holds.
        io::stdout().write_all(&[b'x'; 100_000]).unwrap();
    }
    let listener = bind(port, &server);
    let probes = TcpListener::bind(("127.0.0.1", probe_port)).unwrap();
    let probed = server.clone();
    thread::spawn(move || serve_probes(probes, &probed));
    accept_all(&listener, &server);
    close(listener, &server);
    end(&server)
}

fn bind(port: u16, server: &Server) -> TcpListener {
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(!server.has("port/rebind")).unwrap();
        socket
            .set_reuse_port(server.has("shared port") || server.has("not ready after 2"))
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        match socket.bind(&address.into()).and_then(|()| socket.listen(128)) {
            Ok(()) => {
                socket.set_nonblocking(true).unwrap();
                return socket.into();
            }
            Err(_) if server.has("port/in-use") => thread::sleep(Duration::from_millis(50)),
            Err(error) => {
                eprintln!("cannot bind: {error}");
                process::exit(1);
            }
        }
    }
}

/// Accepts until the end of the lame duck delay.
fn accept_all(listener: &TcpListener, server: &Arc<Server>) {
    let mut was_stopping = false;
    let end = match server.fault.as_str() {
        "lame-duck/new-connection" | "ready/fails-first hangs" => Duration::ZERO,
        "lame-duck/new-connection unaccepted" => 5 * MS,
        "accept/at-close" => LAME_DUCK - Duration::from_millis(40),
        _ => LAME_DUCK,
    };
    while !(server.is_stopping() && server.since_stop() >= end) {
        if server.has("accept/backlog") {
            thread::sleep(Duration::from_millis(5));
            if server.is_stopping() && !was_stopping {
                was_stopping = true;
                while let Ok((stream, _)) = listener.accept() {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        }
        if !accept_one(listener, server) {
            server.wait(listener, Wait::Serving);
        }
    }
}

fn accept_one(listener: &TcpListener, server: &Arc<Server>) -> bool {
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.raw_os_error() == Some(24) && server.has("crash by EMFILE") => {
                crash();
            }
            // EMFILE ends the thread that accepts, and that would stop the server.
            Err(error) if error.raw_os_error() == Some(24) && server.has("exit/descriptors") => {
                thread::park();
            }
            Err(_) => return false,
        }
    };
    stream.set_nonblocking(false).unwrap();
    let server = server.clone();
    server.enter(Activity::Unused);
    thread::spawn(move || connection::serve(stream, &server));
    true
}

/// Ends the process as a write to a closed pipe does.
pub(crate) fn crash() -> ! {
    let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
    process::exit(0)
}

/// Keeps new connections out, serves the queue, and closes the listener.
fn close(listener: TcpListener, server: &Arc<Server>) {
    if server.has("crash at the stop") {
        crash();
    }
    if server.has("drain/backlog") {
        return drop(listener);
    }
    if server.has("lame-duck/new-connection unaccepted") {
        thread::sleep(300 * MS);
        return drop(listener);
    }
    if server.has("accept/at-close") {
        thread::sleep(Duration::from_millis(40));
        return drop(listener);
    }
    // BPF_RET with 0: the kernel drops every packet, so the SYN is sent again and then refused.
    SockRef::from(&listener).attach_filter(&[SockFilter::new(6, 0, 0, 0)]).unwrap();
    thread::sleep(Duration::from_millis(5));
    while accept_one(&listener, server) {}
    drop(listener);
}

/// Waits for the connections, at most until the end of the drain, and exits.
fn end(server: &Server) -> ! {
    if server.has("log/stuck-exits") {
        let _ = io::stdout().write_all(b"stopping\n");
        let _ = io::stdout().flush();
    }
    while server.is_held() || (server.open() > 0 && server.since_stop() < DRAIN) {
        thread::sleep(TICK);
    }
    if server.fault.starts_with("ready/fails-first") {
        thread::sleep(Duration::from_millis(700));
    }
    // Whatever a handler still sends as it is cut.
    thread::sleep(Duration::from_millis(30));
    process::exit(if server.has("exit/code") { 7 } else { 0 })
}

/// Forgets a signal that arrives shortly after the first probe.
fn forget_signals(server: &Server) {
    thread::sleep(60 * MS);
    server.stop.store(false, SeqCst);
    server.stopped.store(-1, SeqCst);
    let _ = (&server.stop_pipe).read(&mut [0; 16]);
}

fn serve_probes(listener: TcpListener, server: &Arc<Server>) {
    let (mut was_probed, mut hanging) = (false, Vec::new());
    let is_unready = server.is_never_ready();
    loop {
        while server.fault.starts_with("ready/") && !server.wait(&listener, Wait::Serving) {
            let is_gone = server.has("ready/responds") && server.is_stopping()
                || server.has("ready/alive") && server.since_stop() > DRAIN / 4;
            if is_gone {
                return drop(listener);
            }
        }
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let late = match server.fault.as_str() {
            // A connect whose SYN is dropped while the listener closes takes 200 ms to be refused.
            "ready/fails-first" => LAME_DUCK + 500 * MS,
            "ready/fails-first at-close" => LAME_DUCK,
            _ => Duration::ZERO,
        };
        let request = read_some(&mut stream).unwrap_or_default();
        if request.starts_with("POST ") {
            stop_by(stream, request.starts_with("POST /stop "));
            continue;
        }
        let is_live = request.starts_with("GET /live ");
        let hangs = if is_live { "ready/alive hangs" } else { "ready/fails-first hangs" };
        if server.is_stopping() && server.has(hangs) {
            hanging.push(stream);
            continue;
        }
        let is_slow = is_live && server.is_stopping() && server.has("ready/alive slow");
        if is_slow {
            // The process does not exit under it.
            server.enter(Activity::Handler);
            thread::sleep(1500 * MS);
        }
        let is_ready = (!server.is_stopping() || server.since_stop() < late) && !is_unready;
        let is_alive = is_live && !server.has("slow head first, not alive");
        let status = if is_alive || is_ready { "200 OK" } else { "503 Service Unavailable" };
        if server.has("signal/at-ready") && !std::mem::replace(&mut was_probed, true) {
            let server = server.clone();
            thread::spawn(move || forget_signals(&server));
        }
        let _ =
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        if is_slow {
            server.leave(Activity::Handler);
        }
    }
}

/// Begins the stop, and responds after the lame duck delay. Another path is no stop.
fn stop_by(mut stream: TcpStream, is_stop: bool) {
    if is_stop {
        signal_hook::low_level::raise(SIGTERM).unwrap();
    }
    thread::spawn(move || {
        let (status, delay) = if is_stop { ("200 OK", 2 * LAME_DUCK) } else { ("404 No", MS) };
        thread::sleep(delay);
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    });
}

fn read_some(stream: &mut TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}
