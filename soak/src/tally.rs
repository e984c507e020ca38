//! What became of the requests, as their clients saw it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of all clients together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered whole.
    pub answered: AtomicU64,
    /// Answered with a status that no handler chose: 503 and the like.
    pub refused_by_status: AtomicU64,
    /// Not sent, because the connect was refused: the client may go elsewhere.
    pub refused: AtomicU64,
    /// Sent on a kept connection whose end was already on the wire (RFC 9112 §9.5), and sent again on another.
    pub close_races: AtomicU64,
    /// Sent, and not answered.
    pub lost: AtomicU64,
    /// How the first ones failed that did.
    pub stories: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    /// Counts one more lost request, with its story.
    pub fn lose(&self, story: String) {
        self.lost.fetch_add(1, Relaxed);
        self.tell(story);
    }

    /// Keeps a story, unless there are many.
    pub fn tell(&self, story: String) {
        let mut stories = self.stories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stories.len() < 20 {
            stories.push(story);
        }
    }

    /// Requests that got an answer, whole.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Requests that were sent and not answered.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Requests that a client of a balancer would call failed: whatever was not answered by a handler. A balancer is there to
    /// stay, so nothing is forgiven: not a refused connect, and not a kept connection that was closed.
    pub fn failed(&self) -> u64 {
        [&self.lost, &self.close_races, &self.refused, &self.refused_by_status]
            .into_iter()
            .map(|count| count.load(Relaxed))
            .sum()
    }

    /// Everything in one line.
    pub fn line(&self) -> String {
        format!(
            "{} answered, {} lost, {} raced and sent again, {} refused before being sent, {} answered with 5xx",
            self.answered.load(Relaxed),
            self.lost.load(Relaxed),
            self.close_races.load(Relaxed),
            self.refused.load(Relaxed),
            self.refused_by_status.load(Relaxed)
        )
    }

    /// How the first ones failed that did, a line each.
    pub fn stories(&self) -> String {
        self.stories.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }
}
