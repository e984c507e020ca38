//! Step 7 of `docs/test-your-shutdown.md`. Its code is compared with the page by the tests of the
//! other steps.

#[expect(unreachable_pub, reason = "its code is that of a crate")]
#[path = "orders.rs"]
mod orders;

use lameduck_sim::{Failure, Passed, explore};
use orders::{Store, host};
use std::{fs, ops::Range, path::Path};

fn explored(seeds: Range<u64>) -> Result<Passed, Failure> {
    explore(|world| host(world.host(), Store::default()))
        .post("/orders", "tea")
        .assertions_in(concat!(module_path!(), "::orders"))
        .seeds(seeds)
        .run()
}

/// Replaces numbers and line ends.
fn normal(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().map(|char| if char.is_ascii_digit() { '#' } else { char }).collect()
}

#[test]
fn the_page_shows_what_a_run_prints_that_is_too_short() {
    explored(0..50).unwrap();
    let mut single = (0..50).filter_map(|seed| explored(seed..seed + 1).err());
    let too_short = single.find(|failure| failure.broken.promise == "S7");
    let printed = normal(&too_short.expect("one seed is too few").to_string());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/test-your-shutdown.md");
    let page = fs::read_to_string(page).expect("a file of this repository");
    let section = page.split("\n## ").find(|section| section.starts_with("7. ")).expect("step 7");
    let text = section.split("```text\n").nth(1).and_then(|rest| rest.split("\n```").next());
    for part in text.expect("its output").split('…').map(normal) {
        assert!(printed.contains(part.trim()), "not printed: {part:?}\n{printed}");
    }
}
