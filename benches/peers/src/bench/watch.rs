//! Watches connections end, and the process after them, as cheaply as can be: one epoll, edge-triggered, that nobody answers.
//! What is seen is the server's time, and the kernel's.

use crate::Result;
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

pub struct Watch {
    epoll: OwnedFd,
    left: usize,
}

/// What was seen.
pub struct Seen {
    /// The last connection's end.
    pub closed: Instant,
    /// The process's.
    pub exited: Instant,
}

/// The number of the process among the events; connections are not told from each other.
const PROCESS: u64 = 1;

/// Longer than any drain of the comparison.
const PATIENCE: Duration = Duration::from_secs(60);

impl Watch {
    /// Before the stop: all is set up then.
    pub fn new(connections: &[TcpStream], exit: &OwnedFd) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for connection in connections {
            epoll::add(&epoll, connection, EventData::new_u64(0), EventFlags::RDHUP | EventFlags::ET)?;
        }
        epoll::add(&epoll, exit, EventData::new_u64(PROCESS), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, left: connections.len() })
    }

    /// Until all have ended and the process has exited.
    pub fn wait(mut self) -> Result<Seen> {
        let began = Instant::now();
        let (mut closed, mut exited) = (began, None);
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 512];
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        while self.left > 0 || exited.is_none() {
            let count = epoll::wait(&self.epoll, &mut events, Some(&timeout))?;
            let now = Instant::now();
            for event in &events[..count] {
                // Packed: no reference into it.
                let Event { flags, data } = *event;
                match data.u64() {
                    PROCESS => exited = Some(now),
                    // A reset after the end is heard once more, but no connection has two ends.
                    _ if flags.contains(EventFlags::RDHUP) => (self.left, closed) = (self.left.saturating_sub(1), now),
                    _ => {}
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("after {PATIENCE:?} the server still holds {} connections", self.left).into());
            }
        }
        Ok(Seen { closed, exited: exited.unwrap_or(closed) })
    }
}
