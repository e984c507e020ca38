//! Records what happens on connections, with times, for a picture or a dump of the bytes.

use crate::End;
use std::{
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Something that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client began to connect.
    Connecting,
    /// The handshake was completed.
    Connected,
    /// The connect failed.
    ConnectFailed(ErrorKind),
    /// The client sent bytes.
    Sent(Excerpt),
    /// The client received bytes.
    Received(Excerpt),
    /// The client sent a FIN.
    ShutWrite,
    /// A read ended: by a FIN, by a reset, or without anything.
    Ended(End),
    /// A remark of the client, for example what it expected.
    Remark(String),
}

/// The beginning of some bytes, and their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// At most 4 KiB.
    pub bytes: Vec<u8>,
    /// Number of all bytes.
    pub length: usize,
}

impl Excerpt {
    /// Keeps the beginning of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes[..bytes.len().min(4096)].to_vec(), length: bytes.len() }
    }
}

/// The connections of a run. All times count from its creation.
#[derive(Clone, Debug)]
pub struct Recorder {
    epoch: Instant,
    tracks: Arc<Mutex<Vec<Track>>>,
}

/// The record of one connection.
#[derive(Clone, Debug)]
pub struct Track {
    epoch: Instant,
    label: Arc<str>,
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Begins a record.
    #[must_use]
    pub fn new() -> Self {
        Self { epoch: Instant::now(), tracks: Arc::default() }
    }

    /// Returns the time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Adds a connection.
    #[must_use]
    pub fn track(&self, label: &str) -> Track {
        let track = self.track_alone(label);
        self.keep(track.clone());
        track
    }

    /// Returns the record of a connection that is not added yet. [`Recorder::keep`] adds it.
    #[must_use]
    pub fn track_alone(&self, label: &str) -> Track {
        Track { epoch: self.epoch, label: label.into(), events: Arc::default() }
    }

    /// Adds the record of a connection.
    pub fn keep(&self, track: Track) {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner).push(track);
    }

    /// Returns the connections, in the order in which they were added.
    #[must_use]
    pub fn tracks(&self) -> Vec<Track> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Track {
    /// Returns the connection's name.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Records an event, now.
    pub fn record(&self, event: Event) {
        let at = self.epoch.elapsed();
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((at, event));
    }

    /// Returns the events until now, in order.
    #[must_use]
    pub fn events(&self) -> Vec<(Duration, Event)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
