//! Watches connections close, and the process end after them, at minimal cost: one edge-triggered
//! epoll, and no response to any event. The measured time is therefore that of the server and the
//! kernel.

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

/// The observed times.
pub struct Seen {
    /// End of the last connection.
    pub closed: Instant,
    /// End of the process.
    pub exited: Instant,
}

/// Epoll data of the process; connections are not distinguished.
const PROCESS: u64 = 1;

/// Longer than any drain of the comparison.
const PATIENCE: Duration = Duration::from_secs(60);

impl Watch {
    /// Registers all descriptors. Call it before the stop, so that this work is not measured.
    pub fn new(connections: &[TcpStream], exit: &OwnedFd) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for connection in connections {
            epoll::add(
                &epoll,
                connection,
                EventData::new_u64(0),
                EventFlags::RDHUP | EventFlags::ET,
            )?;
        }
        epoll::add(&epoll, exit, EventData::new_u64(PROCESS), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, left: connections.len() })
    }

    /// Waits until all connections have ended and the process has exited.
    pub fn wait(mut self) -> Result<Seen> {
        let began = Instant::now();
        let (mut closed, mut exited) = (began, None);
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 512];
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        while self.left > 0 || exited.is_none() {
            let count = epoll::wait(&self.epoll, &mut events, Some(&timeout))?;
            let now = Instant::now();
            for event in &events[..count] {
                // The struct is packed: take no reference into it.
                let Event { flags, data } = *event;
                match data.u64() {
                    PROCESS => exited = Some(now),
                    // A reset after the end causes another event, so never count below zero.
                    _ if flags.contains(EventFlags::RDHUP) => {
                        (self.left, closed) = (self.left.saturating_sub(1), now)
                    }
                    _ => {}
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "after {PATIENCE:?} the server still holds {} connections",
                    self.left
                )
                .into());
            }
        }
        Ok(Seen { closed, exited: exited.unwrap_or(closed) })
    }
}
