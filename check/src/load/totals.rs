//! Outcomes of the requests, as their clients observed them.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

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
    failures: Stories,
    /// Apart, since there may be many: they take no place of a failure.
    races: Stories,
}

/// The first descriptions of one kind.
#[derive(Debug, Default)]
struct Stories(Mutex<Vec<String>>);

/// Descriptions kept of each kind.
const STORIES_MAX: usize = 20;

impl Stories {
    fn add(&self, story: String) {
        let mut stories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stories.len() < STORIES_MAX {
            stories.push(story);
        }
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Totals {
    /// Counts a lost request, with its description.
    pub fn lose(&self, story: String) {
        self.lost.fetch_add(1, Relaxed);
        self.failures.add(story);
    }

    /// Counts a request with another status than 200, with its description.
    pub fn refuse(&self, story: String) {
        self.refused_by_status.fetch_add(1, Relaxed);
        self.failures.add(story);
    }

    /// Counts a close race, with its description.
    pub fn race(&self, story: String) {
        self.close_races.fetch_add(1, Relaxed);
        self.races.add(story);
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

    /// Returns the descriptions of the first requests that were lost or had another status.
    pub fn failures(&self) -> Vec<String> {
        self.failures.all()
    }

    /// Returns the descriptions of the first failures and close races, one per line.
    pub fn stories(&self) -> String {
        [self.failures.all(), self.races.all()].concat().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::Totals;

    // A server that lost a request after 20 close races was blamed without a word.
    #[test]
    fn close_races_leave_a_place_for_each_failure() {
        let totals = Totals::default();
        (0..30).for_each(|n| totals.race(format!("race {n}")));
        totals.lose("lost".to_owned());
        assert_eq!(totals.failures(), ["lost"]);
        assert!(totals.stories().starts_with("lost\nrace 0\n") && totals.lost() == 1);
    }
}
