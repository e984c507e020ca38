//! Lines are at most 100 columns wide: rustfmt wraps neither comments nor what a macro takes. Files
//! have at most 500 lines.

#![expect(clippy::unwrap_used, reason = "sources that cannot be read should fail the test")]

use super::architecture::root;
use std::{
    fs,
    path::{Path, PathBuf},
};

const FOLDERS: [&str; 9] =
    ["src", "benches", "bin", "check", "sim", "wire", "fuzz", "examples", "tests"];

/// Adds the sources in a folder, with their text.
fn read(path: &Path, sources: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            if entry.file_name() != "target" {
                read(&entry.path(), sources);
            }
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        sources.push((path.to_owned(), fs::read_to_string(path).unwrap()));
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        read(&root().join(folder), &mut sources);
    }
    sources
}

fn is_too_wide(line: &str) -> bool {
    let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
    // Code in doc comments, tables and long literals cannot always be wrapped.
    let is_whole = match line.trim_start().starts_with("//") {
        true => comment.starts_with(['|', '#']),
        false => line.contains(['"', '#']) || line.ends_with('\\'),
    };
    !is_whole && line.chars().count() > 100
}

#[test]
fn no_line_is_wider_than_rustfmt_lets_code_be() {
    let mut wide = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().enumerate().filter(|(_, line)| is_too_wide(line));
        wide.extend(lines.map(|(n, _)| format!("{}:{}", path.display(), n + 1)));
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let lines = |(path, text): (PathBuf, String)| (path, text.lines().count());
    let long: Vec<_> = sources().into_iter().map(lines).filter(|(_, lines)| *lines > 500).collect();
    assert!(long.is_empty(), "{long:?}");
}
