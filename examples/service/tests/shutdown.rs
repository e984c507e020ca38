//! Stops the service at every moment, in a simulated world: no order that was acknowledged is lost,
//! no request is cut, nothing is left running.

use lameduck_sim::{explore, harness::Trial};
use orders::{Orders, host};

#[test]
fn no_acknowledged_order_is_lost_in_a_shutdown() {
    explore(|world| {
        let orders = Orders::default();
        let seen = orders.clone();
        Trial::of(host(world.host(), &orders)).at_exit(move |requests| {
            let (acknowledged, stored) = (requests.succeeded("/orders"), seen.stored());
            if acknowledged <= stored {
                Ok(())
            } else {
                Err(format!("{acknowledged} orders acknowledged, {stored} stored"))
            }
        })
    })
    .get("/")
    .post("/orders", "tea")
    .seeds(0..100)
    .run()
    .unwrap();
}
