//! x
use crate::stage::play;
use lameduck_sim::{network::*, scenario::*};

#[test]
fn smoke() {
    let s = Scenario::new("smoke").client(Client::once(900, Deed::Slow(500))).client(Client::new(1500, Deed::Fast, Traffic::KeepAlive{requests: 20, every_ms: 50, retries: false}))
     .client(Client::new(0, Deed::Slow(30), Traffic::Http2{requests: 200, every_ms: 10})).client(Client::new(1990, Deed::Fast, Traffic::ByteLess));
    let o = play::<TurmoilNetWorld>(&s);
    println!("{}", o.trace.text());
    println!("{:?} {:?}", o.report, o.ended);
    let o = play::<TurmoilWorld>(&s);
    println!("{}", o.trace.text().lines().filter(|l| l.contains("server") || l.contains("failed") || l.contains("goaway")|| l.contains("closed")).collect::<Vec<_>>().join("\n"));
    println!("{:?} {:?}", o.report, o.ended);
}
