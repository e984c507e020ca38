//! The states of a connection's requests, which later requests use again.

use super::{connection_state::ConnectionState, request_state::RequestState};
use crate::lifecycle::Moment;
use http::{Method, Uri};
use std::{cell::Cell, collections::VecDeque, sync::Arc};

/// States that are kept in addition to the last one. A client has more requests at a time on
/// HTTP/2, where a state takes little in comparison.
const STATES_KEPT: usize = 32;

/// The states of the last requests. Most requests have ended when another one begins, so they cost
/// no allocation.
#[derive(Default)]
pub(super) struct RequestStates {
    last: Cell<Option<Arc<RequestState>>>,
    /// Earlier ones, the oldest first. Empty unless requests overlap.
    earlier: Cell<VecDeque<Arc<RequestState>>>,
}

impl RequestStates {
    /// Returns the state of the next request.
    pub(super) fn next(
        &self,
        connection: &Arc<ConnectionState>,
        arrived: Moment,
        method: &Method,
        uri: &Uri,
    ) -> Arc<RequestState> {
        let begin = |state: &mut RequestState| state.begin(arrived, method, uri);
        let free = match self.last.take() {
            Some(mut last) => match Arc::get_mut(&mut last) {
                Some(state) => {
                    begin(state);
                    Some(last)
                }
                None => self.replace(last, begin),
            },
            None => None,
        };
        let state = free.unwrap_or_else(|| RequestState::begun(connection, arrived, method, uri));
        self.last.set(Some(state.clone()));
        state
    }

    /// Keeps a state that is in use. Returns the oldest one if it is free.
    #[cold]
    fn replace(
        &self,
        used: Arc<RequestState>,
        begin: impl Fn(&mut RequestState),
    ) -> Option<Arc<RequestState>> {
        let mut earlier = self.earlier.take();
        earlier.push_back(used);
        let mut oldest = earlier.pop_front();
        match oldest.as_mut().and_then(Arc::get_mut) {
            Some(state) => begin(state),
            None => {
                let used = oldest.take();
                // It may be in use for long, and must not be in the way of later ones.
                if earlier.len() < STATES_KEPT {
                    used.into_iter().for_each(|used| earlier.push_front(used));
                }
            }
        }
        self.earlier.set(earlier);
        oldest
    }
}
