//! Keeps the bug zoo in step with the code: every patch must apply, and must name its promise and
//! its story. `just zoo` tests whether exploration finds the bugs.

use std::{collections::BTreeSet, path::Path, process::Command};

#[test]
fn every_patch_of_the_zoo_still_applies_and_names_its_promise() {
    let sim = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut promises = BTreeSet::new();
    let mut count = 0;
    for entry in std::fs::read_dir(sim.join("zoo")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let promise = text.lines().next().and_then(|line| line.strip_prefix("Promise: "));
        promises.insert(promise.unwrap().to_owned());
        assert!(
            text.lines().nth(1).is_some_and(|line| line.starts_with("Story: ")),
            "{}: no story",
            path.display()
        );
        // `git apply --check` works without a repository.
        let mut git = Command::new("git");
        git.current_dir(sim.join("..")).args(["apply", "--check"]).arg(&path);
        let checked = git.output().unwrap();
        assert!(
            checked.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&checked.stderr)
        );
        count += 1;
    }
    assert!(count >= 40 && promises.len() >= 13, "{count} bugs against {promises:?}");
}
