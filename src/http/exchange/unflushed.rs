//! Responses that ended and whose last bytes may still be in a buffer of hyper or h2.
//!
//! A response is *finished* only once all of its bytes were handed to the kernel (P5c). The queue belongs to the connection. Bodies
//! hold it weakly: an HTTP/2 stream may outlive its connection by a moment, and a response that ends then never left.

use super::{
    connection_state::{ConnectionState, Protocol},
    request_state::{Delivery, InFlight, RequestState},
};
use crate::{http::server::limits::UNFLUSHED_SETTLED_FROM, lifecycle::Moment};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The queue of one connection. Requests that are left in it when it is dropped were not sent: they are *aborted* or *gone*.
#[derive(Debug)]
pub(crate) struct UnflushedResponses {
    connection: Arc<ConnectionState>,
    queue: Mutex<Vec<InFlight>>,
}

impl UnflushedResponses {
    pub(super) fn new(connection: Arc<ConnectionState>) -> Arc<Self> {
        Arc::new(Self { connection, queue: Mutex::default() })
    }

    /// The body of a response has ended.
    pub(crate) fn push(&self, in_flight: InFlight) {
        // The stream of a response of which bytes were thrown away was reset: nothing of it waits for a flush.
        let is_lost = self.connection.protocol == Protocol::Http2
            && in_flight.request().delivery() == Delivery::Incomplete;
        let lost = if is_lost {
            Some(in_flight)
        } else {
            let mut queue = self.lock();
            queue.push(in_flight);
            self.connection.responses.set_unflushed(queue.len());
            None
        };
        self.connection.on_request_ended();
        drop(lost);
    }

    /// Everything that hyper wrote was flushed. HTTP/2 may still hold bytes of a response.
    pub(crate) fn settle_flushed(&self, now: impl Fn() -> Moment) {
        if !self.connection.responses.has_unflushed() {
            return;
        }
        let mut queue = self.lock();
        match self.connection.protocol {
            // What was flushed has left.
            Protocol::Http1 => {
                while let Some(in_flight) = queue.pop() {
                    in_flight.finish(&now);
                }
            }
            Protocol::Http2 => {
                let ended = queue.extract_if(.., |in_flight| {
                    in_flight.request().delivery() != Delivery::Pending
                });
                for in_flight in ended {
                    if in_flight.request().delivery() == Delivery::Complete {
                        in_flight.finish(&now);
                    }
                }
                queue.iter_mut().for_each(InFlight::list);
            }
        }
        self.connection.responses.set_unflushed(queue.len());
    }

    /// hyper's write buffer is empty, and HTTP/2 may hold more that the client does not take. If the queue is long, responses that
    /// were written whole are settled without a wait for the rest.
    pub(super) fn settle_written(&self) {
        if self.connection.protocol == Protocol::Http1
            || self.connection.responses.unflushed() < UNFLUSHED_SETTLED_FROM
        {
            return;
        }
        let now = self.connection.server().clock.now();
        // The end of the stream may still wait, unless the last chunk carried it.
        self.settle(
            |request| request.delivery() == Delivery::Complete && request.ends_with_chunk(),
            |in_flight| in_flight.finish(&|| now),
        );
    }

    /// Responses of which HTTP/2 threw bytes away wait for no flush, which might never come.
    pub(crate) fn settle_discarded(&self) {
        if self.connection.responses.take_discarded() {
            self.settle(|request| request.delivery() == Delivery::Incomplete, drop);
        }
    }

    /// Lists the requests whose responses cannot be sent, because their client does not read.
    pub(crate) fn list(&self) {
        if self.connection.responses.has_unflushed() {
            self.lock().iter_mut().for_each(InFlight::list);
        }
    }

    /// The progress of the first response in the queue: when its request arrived, and how many of its bytes have left.
    pub(crate) fn first(&self) -> Option<[u64; 2]> {
        if !self.connection.responses.has_unflushed() {
            return None;
        }
        let queue = self.lock();
        let request = queue.first()?.request();
        Some([request.arrived.as_nanos(), request.passed()])
    }

    fn settle(&self, which: impl Fn(&RequestState) -> bool, settle: impl Fn(InFlight)) {
        let mut queue = self.lock();
        for in_flight in queue.extract_if(.., |in_flight| which(in_flight.request())) {
            settle(in_flight);
        }
        self.connection.responses.set_unflushed(queue.len());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<InFlight>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnflushedResponses {
    fn drop(&mut self) {
        self.connection.responses.set_unflushed(0);
    }
}

/// The body of a response has ended, on a connection that may be closed by now.
pub(super) fn push_or_drop(queue: &Weak<UnflushedResponses>, in_flight: InFlight) {
    match queue.upgrade() {
        Some(queue) => queue.push(in_flight),
        None => in_flight.connection().clone().on_request_ended(),
    }
}
