//! Checks that the documents name existing files and link to existing pages and headings, and that
//! `ARCHITECTURE.md` has every file of `src/http`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its subject should fail")]

use super::architecture::root;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The pages that describe the repository as it is. The changelog describes what it was.
const PAGES: [&str; 20] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "docs/conformance.md",
    "docs/cookbook.md",
    "docs/from-axum-serve.md",
    "docs/grade-your-server.md",
    "docs/limits.md",
    "docs/metrics.md",
    "docs/operations.md",
    "docs/promises.md",
    "docs/restarts.md",
    "docs/should-i-worry.md",
    "docs/test-your-shutdown.md",
    "check/README.md",
    "check/servers/README.md",
    "sim/README.md",
    "benches/README.md",
    "tests/README.md",
];

/// The folders in which a path of a document begins.
const FOLDERS: [&str; 11] = [
    "src", "bin", "sim", "wire", "check", "fuzz", "tests", "examples", "docs", "deploy", "benches",
];

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

/// Returns the texts in backticks outside of code blocks, each within one line.
fn code_spans(page: &str) -> Vec<String> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// Whether a text is a path of this repository, without a placeholder.
fn is_path(text: &str) -> bool {
    let folder = text.split('/').next().unwrap_or_default();
    let is_path = |char: char| char.is_ascii_alphanumeric() || "/_-.".contains(char);
    text.contains('/') && FOLDERS.contains(&folder) && text.chars().all(is_path)
}

#[test]
fn files_that_the_documents_name_exist() {
    // Folders that a command on the page creates.
    let made = ["sim/failures/"];
    for page in PAGES {
        for path in code_spans(&read(page)).iter().filter(|span| is_path(span)) {
            assert!(
                root().join(path).exists() || made.contains(&path.as_str()),
                "{page} names {path}, which does not exist"
            );
        }
    }
}

/// Returns the anchor of a heading, as on GitHub.
fn anchor(heading: &str) -> String {
    let kept = |char: &char| char.is_alphanumeric() || "-_ ".contains(*char);
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
}

/// Returns the targets of the links on a page.
fn links(page: &str) -> Vec<String> {
    let targets = page.split("](").skip(1);
    targets.filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

#[test]
fn links_between_the_documents_have_targets() {
    for page in PAGES {
        let at = root().join(page);
        for link in links(&read(page)).iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let target: PathBuf =
                if file.is_empty() { at.clone() } else { at.parent().unwrap().join(file) };
            assert!(target.exists(), "{page} links to {link}, which does not exist");
            assert!(
                heading.is_empty() || anchors(&target).contains(heading),
                "{page} links to {link}: there is no such heading"
            );
        }
    }
}

#[test]
fn the_architecture_has_each_file_of_http_once() {
    let page = read("ARCHITECTURE.md");
    let mut folders = vec![root().join("src/http")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root().join("src/http")).unwrap().display().to_string();
            let rows = page.matches(&format!("\n| `{name}` |")).count();
            let is_at_the_top = page.contains(&format!("`src/http/{name}`"));
            assert!(
                rows == 1 || (!name.contains('/') && is_at_the_top),
                "ARCHITECTURE.md has {rows} rows of {name}"
            );
        }
    }
}

#[test]
fn the_phases_have_one_diagram() {
    // There were three diagrams of the phases, and they differed. There must be one.
    for page in ["README.md", "src/lib.rs", "src/lifecycle/mod.rs", "docs/operations.md"] {
        let text = read(page);
        assert!(
            !text.lines().any(|line| line.contains("LameDuck ──")),
            "{page}: the diagram of the phases is in ARCHITECTURE.md"
        );
    }
    assert!(read("ARCHITECTURE.md").contains("LameDuck ──"));
}
