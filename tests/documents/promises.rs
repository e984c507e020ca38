//! Checks the documents of the promises. `tests/README.md` lists the modules whose headers name a
//! promise. `docs/promises.md` names existing code, tests, oracles and wrong variants, and its text
//! is quoted word for word.

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

/// Returns the rows in `docs/promises.md` that have this number of cells, by their first cell.
fn rows_of_the_page(cells: usize) -> BTreeMap<String, Vec<String>> {
    let page = fs::read_to_string(root().join("docs/promises.md")).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| P"));
    let rows = rows.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().into()));
    rows.map(Iterator::collect::<Vec<String>>)
        .filter(|row| row.len() == cells)
        .map(|mut row| (row.remove(0), row))
        .collect()
}

/// Returns the texts in backticks of a cell.
fn named_in(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_promise_has_its_text_and_a_row_of_what_keeps_it() {
    let texts = rows_of_the_page(2);
    let kept = rows_of_the_page(5);
    let mut ids: Vec<String> = Vec::new();
    for (number, parts) in PROMISES {
        if parts.is_empty() {
            ids.push(format!("P{number}"));
        }
        ids.extend(parts.chars().map(|part| format!("P{number}{part}")));
    }
    let expected: BTreeSet<_> = ids.iter().collect();
    assert_eq!(texts.keys().collect::<BTreeSet<_>>(), expected);
    assert_eq!(kept.keys().collect::<BTreeSet<_>>(), expected);
    for (id, row) in &kept {
        assert!(!named_in(&row[0]).is_empty(), "{id}: no code");
        assert!(!named_in(&row[1]).is_empty(), "{id}: no tests");
    }
}

#[test]
fn the_code_and_the_tests_that_keep_a_promise_exist() {
    for (id, row) in rows_of_the_page(5) {
        let mut code = String::new();
        for name in named_in(&row[0]) {
            if name.contains('/') || name.contains('.') {
                code = fs::read_to_string(root().join(name))
                    .unwrap_or_else(|_| panic!("{id}: there is no {name}"));
            } else {
                let item = name.rsplit("::").next().unwrap_or(name);
                assert!(code.contains(item), "{id}: {name} is not in the file before it");
            }
        }
        for module in named_in(&row[1]) {
            let path = format!("tests/{}", module.replace("::", "/"));
            let is_there =
                [format!("{path}.rs"), format!("{path}/main.rs"), format!("sim/{path}.rs")]
                    .iter()
                    .any(|path| root().join(path).exists());
            assert!(is_there, "{id}: there are no tests {module}");
        }
    }
}

#[test]
fn the_oracles_of_the_promises_exist_and_none_is_left_out() {
    let mut named = BTreeSet::new();
    for (id, row) in rows_of_the_page(5) {
        for oracle in named_in(&row[2]) {
            let (module, function) = oracle.split_once("::").expect("module::function");
            let file = root().join(format!("sim/src/oracle/{module}.rs"));
            let code = fs::read_to_string(file).unwrap_or_else(|_| panic!("{id}: no {oracle}"));
            assert!(code.contains(&format!("fn {function}(")), "{id}: there is no oracle {oracle}");
            named.insert(oracle.to_owned());
        }
    }
    let oracles = fs::read_to_string(root().join("sim/src/oracle/mod.rs")).expect("the oracles");
    for oracle in oracles.split("judge: ").skip(1).filter_map(|rest| rest.split([' ', ',']).next())
    {
        let is_a_path = oracle.contains("::");
        assert!(!is_a_path || named.contains(oracle), "docs/promises.md does not name {oracle}");
    }
}

#[test]
fn each_wrong_variant_is_named_by_the_promise_that_it_breaks() {
    let mut named = BTreeSet::new();
    for (id, row) in rows_of_the_page(5) {
        for variant in named_in(&row[3]) {
            let patch = root().join(format!("sim/zoo/{variant}.patch"));
            let patch =
                fs::read_to_string(patch).unwrap_or_else(|_| panic!("{id}: there is no {variant}"));
            let promise = patch.lines().next().and_then(|line| line.strip_prefix("Promise: "));
            let promise = promise.expect("a promise");
            assert!(id.starts_with(promise), "{variant} breaks {promise}, not {id}");
            assert!(named.insert(format!("{variant}.patch")), "{variant} has two rows");
        }
    }
    for entry in fs::read_dir(root().join("sim/zoo")).expect("the zoo") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(named.contains(&name), "docs/promises.md does not name {name}");
    }
}

#[test]
fn promises_are_quoted_word_for_word() {
    let texts = rows_of_the_page(2);
    for page in ["README.md", "src/lib.rs"] {
        let page = fs::read_to_string(root().join(page)).expect("a page");
        for line in page.lines() {
            let line = line.trim_start_matches("//! ");
            let Some((id, text)) = line.strip_prefix("| P").and_then(|row| row.split_once(" | "))
            else {
                continue;
            };
            let Some(promise) = texts.get(&format!("P{id}")) else { continue };
            let text = text.trim_end_matches('|').trim();
            assert!(promise[0].starts_with(text), "P{id} is\n{}\nand not\n{text}", promise[0]);
        }
    }
}
