//! Checks that `tests/README.md` lists, for each promise, the modules whose headers name it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The promises, each with the letters of its parts.
const PROMISES: [(u8, &str); 17] = [
    (1, ""),
    (2, "ab"),
    (3, ""),
    (4, ""),
    (5, "abcd"),
    (6, ""),
    (7, ""),
    (8, ""),
    (9, ""),
    (10, ""),
    (11, ""),
    (12, ""),
    (13, ""),
    (14, ""),
    (15, ""),
    (16, ""),
    (17, ""),
];

/// The folders of tests, each with the prefix of its modules in `cargo test`.
const TESTS: [(&str, &str); 5] = [
    ("tests/core", "core"),
    ("tests/host", "host"),
    ("tests/process", "process"),
    ("tests/simulation", "simulation"),
    ("sim/tests", ""),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files below a folder, in order.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder of tests") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(path);
        }
    }
    files
}

/// Returns the promises that a module's header names before its colon: `//! P4, P5b: …`.
fn promises_of(path: &Path) -> Vec<(u8, String)> {
    let code = fs::read_to_string(path).expect("a test");
    let header = code.lines().next().and_then(|line| line.strip_prefix("//! P"));
    let header = header.filter(|header| header.starts_with(|char: char| char.is_ascii_digit()));
    let Some((named, _)) = header.and_then(|header| header.split_once(':')) else {
        return Vec::new();
    };
    let part = |id: &str| {
        let digits = id.trim_end_matches(|char: char| char.is_ascii_lowercase());
        let number = digits.parse().unwrap_or_else(|_| panic!("{}: P{id}", path.display()));
        let parts = PROMISES.iter().find(|(known, _)| *known == number).map(|(_, parts)| *parts);
        let letter = &id[digits.len()..];
        assert!(parts.is_some_and(|parts| parts.contains(letter)), "{}: P{id}", path.display());
        (number, letter.to_owned())
    };
    named.split(", ").map(|id| part(id.trim_start_matches('P'))).collect()
}

/// Returns the rows of the table: each promise with the modules that name it.
fn rows() -> String {
    let mut tests: BTreeMap<(u8, String), Vec<String>> = BTreeMap::new();
    for (folder, binary) in TESTS {
        let folder = root().join(folder);
        for path in files(&folder) {
            let module = path.strip_prefix(&folder).expect("a file of it").with_extension("");
            let mut names: Vec<_> =
                module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            names.retain(|name| name != "main" && name != "mod");
            names.insert(0, binary.to_owned());
            names.retain(|name| !name.is_empty());
            for promise in promises_of(&path) {
                tests.entry(promise).or_default().push(format!("`{}`", names.join("::")));
            }
        }
    }
    for (number, _) in PROMISES {
        assert!(tests.keys().any(|(tested, _)| *tested == number), "P{number} has no test");
    }
    let row = |((number, letter), modules): (&(u8, String), &Vec<String>)| {
        format!("| P{number}{letter} | {} |\n", modules.join(" "))
    };
    tests.iter().map(row).collect()
}

#[test]
fn the_table_lists_the_tests_of_each_promise() {
    let page = fs::read_to_string(root().join("tests/README.md")).expect("the page");
    let table = page.rsplit("|---|---|\n").next().expect("the table");
    let rows = rows();
    assert!(table.starts_with(&rows), "tests/README.md: the table of promises is now\n{rows}");
    assert!(!table[rows.len()..].starts_with('|'), "tests/README.md has rows of no test:\n{table}");
}
