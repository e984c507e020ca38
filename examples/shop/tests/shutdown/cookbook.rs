//! `docs/cookbook.md` shows the code of the shop, and the output of the simulation for each bug.

use lameduck_sim::Failure;
use shop::Bug;
use std::{fs, path::Path};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the lines in the code blocks of a section in this language.
fn lines<'a>(section: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next()).flat_map(str::lines).collect()
}

/// Replaces numbers, which change with the generator, and the widths of columns.
fn normal(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut normal = String::new();
    for char in text.chars() {
        match char {
            '0'..='9' if normal.ends_with('#') => {}
            '0'..='9' => normal.push('#'),
            _ => normal.push(char),
        }
    }
    normal
}

/// Asserts that the section of a bug has only code of the shop, and only output of the simulation.
#[track_caller]
pub fn is_shown(bug: Bug, failure: &Failure) {
    let page = read("../../docs/cookbook.md");
    let name = format!("`Bug::{bug:?}`");
    let section = page.split("\n## ").find(|section| section.contains(&name));
    let section = section.unwrap_or_else(|| panic!("no section about {name}"));

    let sources = ["lib", "orders", "messages"].map(|file| read(&format!("src/{file}.rs")));
    let sources: Vec<&str> = sources.iter().flat_map(|text| text.lines()).map(str::trim).collect();
    let code = lines(section, "rust");
    assert!(!code.is_empty(), "{name} has no code");
    for line in code {
        assert!(sources.contains(&line.trim()), "not in the shop: {line}");
    }

    let printed = normal(&failure.to_string());
    let output = lines(section, "text");
    assert!(output.len() >= 2, "{name} has no output");
    for part in output.iter().flat_map(|line| line.split('…')).map(normal) {
        assert!(printed.contains(part.trim()), "not printed: {part:?}\n{printed}");
    }
}
