use super::orders;

use lameduck_sim::explore;
use orders::{Store, host};

#[should_panic(expected = "S2 (no task is left) is broken")]
#[test]
fn a_shutdown_loses_nothing() {
    explore(|world| host(world.host(), Store::default()))
        .post("/orders", "tea")
        .seeds(0..50)
        .run()
        .unwrap();
}

/// Returns the output of the failing test, for the page.
pub fn printed() -> String {
    let store = Store::default();
    assert_eq!(store.stored(), 0);
    let run = explore(move |world| host(world.host(), store.clone())).post("/orders", "tea");
    run.seeds(0..50).run().expect_err("a bug is planted").to_string()
}
