//! Which requests the plays have proved something about.

use super::play::DeployOutcome;
use crate::{harness::proof::NO_VALUE, scenario::Request, trace::Record};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Proved {
    /// The requests that succeeded in some play.
    requests: Vec<Request>,
    /// The requests that were sent in some play.
    sent: Vec<Request>,
    /// By the name of a request, a value that a response before it did not have.
    no_value: BTreeMap<String, String>,
}

impl Proved {
    pub(super) fn of(outcome: &DeployOutcome) -> Self {
        let mut proved = Self::default();
        let succeeded = outcome.observed.iter().filter(|observed| observed.succeeded());
        add_new(&mut proved.requests, succeeded.map(|observed| observed.request.clone()));
        let sent = outcome.observed.iter().map(|observed| observed.request.clone());
        add_new(&mut proved.sent, sent);
        let unsent = outcome.trace.events(NO_VALUE);
        let text = |record: &Record, name| record.text(name).map(ToOwned::to_owned);
        let unsent = unsent.iter().filter_map(|it| Some((text(it, "of")?, text(it, "what")?)));
        proved.no_value.extend(unsent);
        proved
    }

    pub(super) fn add(&mut self, play: Self) {
        add_new(&mut self.requests, play.requests);
        add_new(&mut self.sent, play.sent);
        self.no_value.extend(play.no_value);
    }

    /// Says which value a request lacked, if it was never sent for that.
    pub(super) fn why(&self, request: &Request) -> String {
        let no_value = self.no_value.get(&request.name());
        let no_value = no_value.filter(|_| !self.sent.contains(request));
        no_value.map_or_else(String::new, |value| {
            format!("; the response of the request before it had no value for {value}")
        })
    }

    /// Returns the first of `requests`, and of those that follow them, that never succeeded.
    pub(super) fn missing<'a>(&self, requests: &'a [Request]) -> Option<&'a Request> {
        requests.iter().flat_map(Request::steps).find(|step| !self.requests.contains(step))
    }
}

fn add_new(known: &mut Vec<Request>, requests: impl IntoIterator<Item = Request>) {
    for request in requests {
        if !known.contains(&request) {
            known.push(request);
        }
    }
}
