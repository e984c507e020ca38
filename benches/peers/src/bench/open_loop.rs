//! An open loop: requests are written at their scheduled times, whether or not earlier ones got a
//! response. The independent clients of a real service do the same. The gaps between requests are
//! drawn from an exponential distribution.
//!
//! A request uses the connection that has been idle longest, or a new one if all are busy or
//! closed. If it cannot be written because the connection is refused or was closed before, it does
//! not count against the server: in a deploy its successor would serve it. A request that was
//! written and got no complete response is *lost*.

use crate::{
    Result, client,
    lane::{Lane, News, Request},
};
use lameduck::runtime::Seed;
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

const CONNECTIONS: usize = 64;

/// Maximum number of open connections: a client has its limits, too.
const CONNECTIONS_MAX: usize = 4096;

pub struct OpenLoop {
    address: SocketAddr,
    epoll: OwnedFd,
    lanes: Vec<Option<Lane>>,
    free: Vec<usize>,
    idle: VecDeque<usize>,
    record: Record,
    others: Option<(u64, &'static [u8])>,
}

/// Results of a load.
#[derive(Default)]
pub struct Record {
    /// When each response to a plain request arrived, and how long it took.
    pub responses: Vec<(Instant, Duration)>,
    pub lost: usize,
    /// End of the server process, if it has ended.
    pub exit: Option<Instant>,
}

/// Epoll data of the process; connections use their index.
const PROCESS: u64 = u64::MAX;

impl OpenLoop {
    pub fn new(address: SocketAddr, exit: &OwnedFd) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, exit, EventData::new_u64(PROCESS), EventFlags::IN | EventFlags::ET)?;
        let (lanes, free, idle) = (Vec::new(), Vec::new(), VecDeque::new());
        let record = Record::default();
        let mut this = Self { address, epoll, lanes, free, idle, record, others: None };
        for _ in 0..CONNECTIONS {
            let lane = this.board(Lane::idle(client::served_once(address)?)?)?;
            this.idle.push_back(lane);
        }
        Ok(this)
    }

    /// Makes one in `every` requests this one, from the first of a run on.
    pub fn mix(&mut self, every: u64, request: &'static [u8]) {
        self.others = Some((every, request));
    }

    /// Sends `rate` requests a second, for `span` or until the process is gone.
    pub fn run(&mut self, rate: f64, span: Duration) -> Result<()> {
        let (began, seed) = (Instant::now(), Seed(7));
        let mut due = Duration::ZERO;
        for n in 0_u64.. {
            while began.elapsed() < due {
                self.turn(Timespec { tv_sec: 0, tv_nsec: 0 })?;
            }
            if self.record.exit.is_some() || began.elapsed() >= span {
                break;
            }
            self.ask(match self.others {
                Some((every, other)) if n.is_multiple_of(every) => Request::Other(other),
                _ => Request::Plain,
            })?;
            // Uniform in [0, 1).
            let chance = (seed.nth(n) >> 11) as f64 / (1_u64 << 53) as f64;
            due += Duration::from_secs_f64(-(1.0 - chance).ln() / rate);
        }
        Ok(())
    }

    /// Reads the outstanding responses for a short time. Requests without one are lost.
    pub fn finish(mut self) -> Result<Record> {
        let patience = Instant::now();
        while self.waiting() > 0 && patience.elapsed() < Duration::from_millis(200) {
            self.turn(Timespec { tv_sec: 0, tv_nsec: 1_000_000 })?;
        }
        self.record.lost += self.waiting();
        Ok(self.record)
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().flatten().filter(|lane| lane.is_waiting()).count()
    }

    /// Sends one request: on an idle connection that accepts it, else on a new one.
    fn ask(&mut self, request: Request) -> Result<()> {
        while let Some(number) = self.idle.pop_front() {
            let Some(lane) = &mut self.lanes[number] else { continue };
            match lane.send(request) {
                News::Unsent => self.leave(number),
                _ => return Ok(()),
            }
        }
        if self.lanes.len() - self.free.len() < CONNECTIONS_MAX
            && let Ok(lane) = Lane::connect(self.address, request)
        {
            let number = self.board(lane)?;
            self.settle(number, |lane| lane.send(request));
        }
        Ok(())
    }

    /// Handles pending events, waiting for them at most `timeout`.
    fn turn(&mut self, timeout: Timespec) -> Result<()> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        let count = epoll::wait(&self.epoll, &mut events, Some(&timeout))?;
        for event in &events[..count] {
            match event.data.u64() {
                PROCESS => self.record.exit = Some(Instant::now()),
                number => self.settle(number as usize, Lane::peek),
            }
        }
        Ok(())
    }

    fn settle(&mut self, number: usize, step: impl FnOnce(&mut Lane) -> News) {
        let Some(lane) = self.lanes.get_mut(number).and_then(Option::as_mut) else { return };
        match step(lane) {
            News::None => {}
            News::Response { request, written, took, closes } => {
                if request == Request::Plain {
                    self.record.responses.push((written + took, took));
                }
                match closes {
                    true => self.leave(number),
                    false => self.idle.push_back(number),
                }
            }
            News::Lost => {
                self.record.lost += 1;
                self.leave(number);
            }
            News::Unsent | News::Ended => self.leave(number),
        }
    }

    fn board(&mut self, lane: Lane) -> Result<usize> {
        let number = self.free.pop().unwrap_or(self.lanes.len());
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &lane.socket, EventData::new_u64(number as u64), flags)?;
        match self.lanes.get_mut(number) {
            Some(place) => *place = Some(lane),
            None => self.lanes.push(Some(lane)),
        }
        Ok(number)
    }

    /// Closes a connection.
    fn leave(&mut self, number: usize) {
        self.lanes[number] = None;
        self.free.push(number);
        self.idle.retain(|idle| *idle != number);
    }
}
