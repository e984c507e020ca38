//! The costs of single-threaded workers are named where `run` and `Host::run` are chosen.

#![expect(clippy::unwrap_used, reason = "a page that cannot be read should fail the test")]

use super::architecture::root;
use std::fs;

/// Returns the text of a page without marks of comments and line breaks.
fn text(page: &str) -> String {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let lines = text.lines().map(|line| line.trim().trim_start_matches('/').trim());
    lines.collect::<Vec<_>>().join(" ")
}

// A blocked worker stalled requests of other workers, one gRPC channel used one core, and the
// connections of a small client were spread unevenly. No page had named these costs.
#[test]
fn the_costs_of_single_threaded_workers_are_named_where_they_are_chosen() {
    for (page, sentences) in [
        (
            "src/process.rs",
            &[
                "It can stall requests of *other* workers, too: a client that all handlers share",
                "uses one core",
                "The kernel spreads connections by a hash of their addresses",
            ][..],
        ),
        (
            "docs/operations.md",
            &[
                "so do requests of other workers that use a shared client whose connection runs on \
                 that worker",
                "| one HTTP/2 connection (a gRPC channel, a proxy's upstream) | one core |",
                "| few connections | spread by hash, unevenly |",
            ],
        ),
        ("docs/from-axum-serve.md", &["operations.md#run-or-hostrun"]),
    ] {
        let text = text(page);
        for sentence in sentences {
            assert!(text.contains(sentence), "{page} does not say {sentence:?}");
        }
    }
}
