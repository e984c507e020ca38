use super::orders;

use lameduck_sim::{Trial, explore};
use orders::{Store, host};

#[test]
fn every_acknowledged_order_is_stored() {
    explore(|world| {
        let store = Store::default();
        Trial::of(host(world.host(), store.clone())).at_exit(move |received| {
            let (acknowledged, stored) = (received.succeeded("/orders"), store.stored());
            let lost = acknowledged.saturating_sub(stored);
            if lost == 0 { Ok(()) } else { Err(format!("{lost} acknowledged orders are lost")) }
        })
    })
    .post("/orders", "tea")
    .expect(202)
    .seeds(0..50)
    .run()
    .unwrap();
}
