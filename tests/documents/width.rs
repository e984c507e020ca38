//! Comments are at most 100 columns wide. rustfmt does not wrap them.

#![expect(clippy::unwrap_used, reason = "sources that cannot be read should fail the test")]

use super::architecture::root;
use std::{fs, path::Path};

const FOLDERS: [&str; 8] = ["src", "bin", "check", "sim", "wire", "fuzz", "examples", "tests"];

fn check(path: &Path, wide: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            check(&entry.unwrap().path(), wide);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| {
            // Code in doc comments and tables cannot always be wrapped.
            let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
            line.trim_start().starts_with("//")
                && !comment.starts_with(['|', '#'])
                && line.chars().count() > 100
        });
        wide.extend(lines.map(|(n, _)| format!("{}:{}", path.display(), n + 1)));
    }
}

#[test]
fn no_comment_is_wider_than_the_code_may_be() {
    let mut wide = Vec::new();
    for folder in FOLDERS {
        check(&root().join(folder), &mut wide);
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}
