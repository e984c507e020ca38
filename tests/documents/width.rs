//! Lines are at most 100 columns wide. rustfmt wraps neither comments nor what a macro takes.

#![expect(clippy::unwrap_used, reason = "sources that cannot be read should fail the test")]

use super::architecture::root;
use std::{fs, path::Path};

const FOLDERS: [&str; 9] =
    ["src", "benches", "bin", "check", "sim", "wire", "fuzz", "examples", "tests"];

fn check(path: &Path, wide: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            if entry.file_name() != "target" {
                check(&entry.path(), wide);
            }
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| {
            let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
            // Code in doc comments, tables and long literals cannot always be wrapped.
            let is_whole = match line.trim_start().starts_with("//") {
                true => comment.starts_with(['|', '#']),
                false => line.contains(['"', '#']) || line.ends_with('\\'),
            };
            !is_whole && line.chars().count() > 100
        });
        wide.extend(lines.map(|(n, _)| format!("{}:{}", path.display(), n + 1)));
    }
}

#[test]
fn no_line_is_wider_than_rustfmt_lets_code_be() {
    let mut wide = Vec::new();
    for folder in FOLDERS {
        check(&root().join(folder), &mut wide);
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}
