//! Which requests the plays have proved something about.

use super::play::DeployOutcome;
use crate::scenario::Request;

/// The requests that succeeded in some play.
#[derive(Debug, Default)]
pub(super) struct Proved(Vec<Request>);

impl Proved {
    pub(super) fn of(outcome: &DeployOutcome) -> Self {
        let mut proved = Self::default();
        let succeeded = outcome.observed.iter().filter(|observed| observed.succeeded());
        proved.extend(succeeded.map(|observed| observed.request.clone()));
        proved
    }

    pub(super) fn add(&mut self, play: Self) {
        self.extend(play.0);
    }

    fn extend(&mut self, requests: impl IntoIterator<Item = Request>) {
        for request in requests {
            if !self.0.contains(&request) {
                self.0.push(request);
            }
        }
    }

    /// Returns the first of `requests`, and of those that follow them, that never succeeded.
    pub(super) fn missing<'a>(&self, requests: &'a [Request]) -> Option<&'a Request> {
        requests.iter().flat_map(Request::steps).find(|step| !self.0.contains(step))
    }
}
