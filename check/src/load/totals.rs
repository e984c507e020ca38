//! Outcomes of the requests, as their clients observed them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of all clients together.
#[derive(Debug, Default)]
pub struct Totals {
    /// Requests with a complete response of status 200.
    pub answered: AtomicU64,
    /// Requests with another status, such as 503 or 404: each route responds 200.
    pub refused_by_status: AtomicU64,
    /// Requests not sent, because the connect was refused: the client may go elsewhere.
    pub refused: AtomicU64,
    /// Requests on a kept connection whose end was already on the wire (RFC 9112 §9.5). The client
    /// may send them again.
    pub close_races: AtomicU64,
    /// Requests sent without a complete response.
    pub lost: AtomicU64,
    /// Descriptions of the first failures.
    pub stories: std::sync::Mutex<Vec<String>>,
}

impl Totals {
    /// Counts a lost request, with its description.
    pub fn lose(&self, story: String) {
        self.lost.fetch_add(1, Relaxed);
        self.tell(story);
    }

    /// Keeps a description, unless there are already 20.
    pub fn tell(&self, story: String) {
        let mut stories = self.stories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stories.len() < 20 {
            stories.push(story);
        }
    }

    /// Returns the number of requests with a complete response.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Returns the number of requests sent without a complete response.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Returns the number of requests that a client of a balancer would call failed: all without a
    /// response from a handler. A balancer stays, so even a refused connect and a closed kept
    /// connection count.
    pub fn failed(&self) -> u64 {
        [&self.lost, &self.close_races, &self.refused, &self.refused_by_status]
            .into_iter()
            .map(|count| count.load(Relaxed))
            .sum()
    }

    /// Returns all counts in one line.
    pub fn line(&self) -> String {
        format!(
            "{} responses, {} lost, {} close races retried, {} connections refused, {} responses \
             without 200",
            self.answered.load(Relaxed),
            self.lost.load(Relaxed),
            self.close_races.load(Relaxed),
            self.refused.load(Relaxed),
            self.refused_by_status.load(Relaxed)
        )
    }

    /// Returns the descriptions of the first failures, one per line.
    pub fn stories(&self) -> String {
        self.stories.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }
}
