use lameduck_sim::{draw::draw, network::TurmoilNetWorld, oracle, scenario::run};
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let mut bad = 0;
    for seed in a[0]..a[1] {
        let scenario = draw(seed);
        let outcome = std::panic::catch_unwind(|| run::<TurmoilNetWorld>(&scenario));
        let Ok(outcome) = outcome else { println!("{seed} PANIC"); bad += 1; continue };
        for b in oracle::broken(&scenario, &outcome) { println!("{seed} {b}"); bad += 1; }
        if std::env::var_os("T").is_some() { println!("{scenario:#?}\n{}", outcome.trace.text()); }
    }
    println!("bad {bad}");
}
