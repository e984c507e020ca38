//! Assertions by the user, at any place in a service: [`always!`](crate::always) and
//! [`sometimes!`](crate::sometimes).

use crate::{explore::current_trace, scenario::SERVER};

/// Event for an `always!` that did not hold.
pub(super) const BROKEN: &str = "always broken";
/// Event for a `sometimes!`, whether its condition held or not, and for an `always!` that held.
pub(super) const SOMETIMES: &str = "sometimes";

#[doc(hidden)]
pub fn assert_always(holds: bool, what: &str, at: &str) {
    let Some(trace) = current_trace() else { return };
    if holds {
        trace.record(SERVER, SOMETIMES, &[("what", what.into()), ("holds", "yes".into())]);
    } else {
        trace.record(SERVER, BROKEN, &[("what", what.into()), ("at", at.into())]);
    }
}

#[doc(hidden)]
pub fn assert_sometimes(holds: bool, what: &str) {
    if let Some(trace) = current_trace() {
        let holds = if holds { "yes" } else { "no" };
        trace.record(SERVER, SOMETIMES, &[("what", what.into()), ("holds", holds.into())]);
    }
}

/// Asserts that a condition holds whenever this place in your service is reached. Outside a
/// simulation it does nothing. A failure names the text and the place (S7).
///
/// [`Trials::sometimes`](crate::Trials::sometimes) with the same text makes a run fail that never
/// reaches this place.
///
/// ```
/// # use axum::{Router, routing::get};
/// use lameduck_sim::{always, explore};
///
/// async fn pay() {
///     let balance = 3;
///     always!(balance >= 0, "the balance is never negative");
/// }
///
/// explore(|world| world.host().serve(Router::new().route("/pay", get(pay))))
///     .get("/pay")
///     .seeds(0..10)
///     .run()
///     .unwrap();
/// ```
#[macro_export]
macro_rules! always {
    ($holds:expr, $what:expr $(,)?) => {
        $crate::harness::assert_always($holds, $what, concat!(file!(), ":", line!()))
    };
}

/// Asserts that this place in your service is reached in at least one of the runs, with a condition
/// that holds. Outside a simulation it does nothing.
///
/// A place that no run reaches is unknown to the simulation, unless the test names it by
/// [`Trials::sometimes`](crate::Trials::sometimes).
///
/// ```
/// # use axum::{Router, routing::get};
/// use lameduck::{RequestContext, lifecycle::Phase};
/// use lameduck_sim::{explore, sometimes};
///
/// async fn order(context: axum::Extension<RequestContext>) {
///     sometimes!(context.phase() == Phase::LameDuck, "an order comes in the lame duck delay");
/// }
///
/// explore(|world| world.host().serve(Router::new().route("/orders", get(order))))
///     .get("/orders")
///     .sometimes("an order comes in the lame duck delay")
///     .seeds(0..50)
///     .run()
///     .unwrap();
/// ```
#[macro_export]
macro_rules! sometimes {
    ($what:literal $(,)?) => {
        $crate::harness::assert_sometimes(true, $what)
    };
    ($holds:expr, $what:expr $(,)?) => {
        $crate::harness::assert_sometimes($holds, $what)
    };
}
