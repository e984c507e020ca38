//! `docs/from-axum-serve.md` shows the difference between two programs that compile.

use std::{fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// Returns the code of an example, without its doc comment.
fn code(path: &str) -> Vec<String> {
    let text = read(path);
    text.lines().skip_while(|line| !line.starts_with("use ")).map(str::to_owned).collect()
}

/// Returns the lines of the page's diff that begin with a space or this sign, without it.
fn side(sign: char) -> Vec<String> {
    let page = read("docs/from-axum-serve.md");
    let (_, diff) = page.split_once("```diff\n").expect("a diff");
    let (diff, _) = diff.split_once("```").expect("its end");
    let line_of = |line: &str| line.strip_prefix([' ', sign]).map(str::to_owned);
    diff.lines().filter_map(line_of).collect()
}

#[test]
fn the_page_shows_the_two_programs() {
    assert_eq!(side('-'), code("examples/from_axum_serve/before.rs"));
    assert_eq!(side('+'), code("examples/from_axum_serve/after.rs"));
}

#[test]
fn three_lines_of_main_are_new() {
    let (before, after) = (side('-'), side('+'));
    let is_new = |line: &&String| !before.contains(line) && !line.starts_with("use ");
    assert_eq!(after.iter().filter(is_new).count(), 3, "{after:#?}");
}
