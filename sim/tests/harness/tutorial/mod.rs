//! The steps of `docs/test-your-shutdown.md`, and that the page shows them.

#[expect(unreachable_pub, reason = "its code is that of a crate")]
mod detached {
    pub(super) mod orders;
    pub(super) mod shutdown;
}
#[expect(unreachable_pub, reason = "its code is that of a crate")]
mod tracked {
    mod handler;
    pub(super) mod orders;
    mod shutdown;
}
#[expect(unreachable_pub, reason = "its code is that of a crate")]
mod paid {
    pub(super) mod orders;
    mod shutdown;
}

use std::{fs, path::Path};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("a file of this repository")
}

/// Returns the code blocks of the page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
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

#[test]
fn the_page_shows_the_code_of_the_steps_and_what_the_kit_prints() {
    let page = read("../docs/test-your-shutdown.md");
    let file = |name: &str| read(&format!("tests/harness/tutorial/{name}.rs"));
    // The lines before the first empty one belong to the tests, and so does `should_panic`.
    let shown_whole =
        ["detached/orders", "tracked/shutdown", "tracked/handler", "paid/orders", "paid/shutdown"];
    let whole: Vec<String> = shown_whole
        .map(|name| file(name).split_once("\n\n").unwrap().1.trim_end().to_owned())
        .into();
    let code = blocks(&page, "rust");
    for file in &whole {
        assert!(code.contains(&file.as_str()), "the page does not show:\n{file}");
    }
    // Step 7 has a separate test binary.
    let asserted = read("tests/assertions/orders.rs");
    let in_part = [file("tracked/orders"), file("detached/shutdown"), asserted];
    for block in code {
        let is_tested = whole.iter().chain(&in_part).any(|file| file.contains(block));
        assert!(is_tested, "no file has:\n{block}");
    }
    let printed = normal(&detached::shutdown::printed());
    let others = page.split("\n## ").filter(|section| !section.starts_with("7. "));
    for line in others.flat_map(|section| blocks(section, "text")).flat_map(str::lines) {
        for part in line.split('…').map(normal) {
            assert!(printed.contains(part.trim()), "not printed: {part:?}\n{printed}");
        }
    }
}
