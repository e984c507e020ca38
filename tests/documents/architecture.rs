//! Checks the layers: imports go down only. It reads the sources, so that a wrong `use` fails with
//! the sentence of its rule.

#![expect(clippy::unwrap_used, reason = "sources that cannot be read should fail the test")]

use super::import_rules::{ENTRY_POINTS, RULES};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> BTreeMap<PathBuf, String> {
    let mut sources = BTreeMap::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.insert(
                    path.strip_prefix(root().join("src")).unwrap().to_owned(),
                    code_of(&text),
                );
            }
        }
    }
    sources
}

/// Returns a source without its comments. A string that contains `//` loses its end, which affects
/// no rule.
pub(super) fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Returns the top-level module of a file.
fn module_of(path: &Path) -> String {
    path.components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Returns every path that begins with `prefix::`, with braces expanded: `crate::{a::B, c}` gives
/// `a::B` and `c`.
pub(super) fn paths_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let needle = format!("{prefix}::");
    for (at, _) in code.match_indices(&needle) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        expand(&code[at + needle.len()..], "", &mut found);
    }
    found
}

/// Reads one path or a group of paths. Returns the code after it.
fn expand<'a>(code: &'a str, prefix: &str, found: &mut BTreeSet<String>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut inside) = code.strip_prefix('{') {
        loop {
            inside = inside.trim_start().trim_start_matches(',').trim_start();
            if let Some(behind) = inside.strip_prefix('}') {
                return behind;
            }
            let rest = expand(inside, prefix, found);
            assert!(rest.len() < inside.len(), "cannot read {:?}", &inside[..inside.len().min(40)]);
            inside = rest;
        }
    }
    let end =
        code.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(code.len());
    let path = format!("{prefix}{}", &code[..end]);
    let mut behind = &code[end..];
    if let Some(deeper) = behind.strip_prefix("::") {
        return expand(deeper, &format!("{path}::"), found);
    }
    if let Some(alias) = behind.strip_prefix(" as ") {
        behind = alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    }
    found.insert(path);
    behind
}

/// Returns the names of the crate that a file uses: by `crate::`, or by enough `super::` to leave
/// its module.
fn names_of_ours(path: &Path, code: &str) -> BTreeSet<String> {
    let mut names = paths_after(code, "crate");
    let depth = path.components().count() - 1;
    let is_module_file = path.file_name().is_some_and(|name| name == "mod.rs");
    let levels = if is_module_file { depth } else { depth + 1 };
    for super_path in paths_after(code, "super") {
        let ups = 1 + super_path.split("::").take_while(|part| *part == "super").count();
        if ups >= levels && levels > 0 {
            names.insert(super_path.split("::").skip(ups - 1).collect::<Vec<_>>().join("::"));
        }
    }
    names
}

#[test]
fn imports_go_down_only() {
    let modules: BTreeSet<String> = sources().keys().map(|path| module_of(path)).collect();
    let mut broken = Vec::new();
    for (path, code) in sources() {
        let module = module_of(&path);
        let Some(rule) = RULES.iter().find(|rule| rule.module == module) else {
            assert!(
                ENTRY_POINTS.contains(&module.as_str()),
                "{}: a new module needs a rule here",
                path.display()
            );
            continue;
        };
        for name in names_of_ours(&path, &code) {
            let first = name.split("::").next().unwrap();
            let is_sibling = modules.contains(first) && first != module;
            // Every type that the crate root re-exports has a module. Importing it from the root
            // would hide that module from the rules.
            let by_root =
                !modules.contains(first) && path.components().count() == 1 && is_of_the_root(&name);
            let allowed =
                rule.may.iter().any(|may| name == *may || name.starts_with(&format!("{may}::")));
            if (is_sibling && !allowed) || by_root {
                broken.push(format!("{} names crate::{name}: {}", path.display(), rule.sentence));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Whether a name at the root is a type: `Host`.
fn is_of_the_root(name: &str) -> bool {
    name.chars().next().is_some_and(char::is_uppercase)
}

#[test]
fn the_lifecycle_uses_core_and_alloc_only() {
    for (path, code) in sources() {
        if module_of(&path) != "lifecycle" {
            continue;
        }
        let code = code.split("#[cfg(test)]").next().unwrap_or("").to_owned();
        for outside in [
            "std",
            "tokio",
            "tokio_util",
            "hyper",
            "http",
            "tracing",
            "rand",
            "bytes",
            "futures_util",
        ] {
            let names = paths_after(&code, outside);
            assert!(
                names.is_empty(),
                "{} names {outside}: the lifecycle is core and alloc alone",
                path.display()
            );
        }
        assert!(
            !code.contains(" async ") && !code.contains(".await"),
            "{}: the lifecycle does not wait",
            path.display()
        );
    }
}

#[test]
fn the_runtime_traits_use_only_the_io_traits_of_tokio() {
    for (path, code) in sources() {
        if module_of(&path) != "runtime" {
            continue;
        }
        for outside in ["hyper", "http", "tokio_util", "tracing", "socket2", "rustix"] {
            assert!(
                paths_after(&code, outside).is_empty(),
                "{} names {outside}: runtime is traits and nothing else",
                path.display()
            );
        }
        for name in paths_after(&code, "tokio") {
            assert!(
                name.starts_with("io::"),
                "{} names tokio::{name}: runtime knows of tokio only its io",
                path.display()
            );
        }
    }
}

#[test]
fn only_os_and_the_entry_points_touch_the_operating_system() {
    for (path, code) in sources() {
        let module = module_of(&path);
        // The demo service uses tokio's time, as services of users do.
        if module == "os" || module == "drill" || ENTRY_POINTS.contains(&module.as_str()) {
            continue;
        }
        for outside in ["socket2", "rustix", "signal_hook", "libc"] {
            assert!(
                paths_after(&code, outside).is_empty(),
                "{} names {outside}: that is os's alone",
                path.display()
            );
        }
        for name in paths_after(&code, "tokio") {
            let first = name.split("::").next().unwrap();
            // A worker keeps its runtime itself, so that what it counts does not depend on an
            // implementation of `Spawner`.
            let is_kept = first == "runtime" && path.ends_with("http/server/worker_runtime.rs");
            let is_real =
                ["net", "signal", "time", "fs", "process", "runtime"].contains(&first) && !is_kept;
            assert!(
                !is_real,
                "{} names tokio::{name}: the world comes through runtime",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_metrics_page_uses_prometheus_client() {
    for (path, code) in sources() {
        // The crate is re-exported for the app's metrics.
        let may = path.starts_with("internal/metrics") || path == Path::new("lib.rs");
        let names = paths_after(&code, "prometheus_client");
        assert!(
            may || names.is_empty(),
            "{} names prometheus_client: counting needs no crate",
            path.display()
        );
    }
}

#[test]
fn the_binary_uses_only_public_api() {
    let main = fs::read_to_string(root().join("bin/lameduck/src/main.rs")).unwrap();
    let code = code_of(&main);
    assert!(paths_after(&code, "crate").is_empty());
    assert!(main.lines().count() < 120, "main.rs reads as the life of a process");
}

#[test]
fn the_crate_does_not_mention_the_simulation() {
    for (path, code) in sources() {
        for word in ["turmoil", "cfg(sim)", "lameduck_sim", "feature = \"sim\""] {
            assert!(
                !code.contains(word),
                "{} mentions {word}: lameduck never knows of its simulation",
                path.display()
            );
        }
    }
}

#[test]
fn users_of_the_library_do_not_depend_on_axum_turmoil_or_clap() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = String::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            continue;
        }
        let is_of_users = section == "dependencies"
            || (section.starts_with("target.") && section.ends_with(".dependencies"));
        let Some((name, value)) =
            line.split_once('=').filter(|_| is_of_users && !line.starts_with('#'))
        else {
            continue;
        };
        let name = name.trim().trim_end_matches(".workspace");
        for banned in ["axum", "turmoil", "turmoil-net", "lameduck-sim"] {
            assert_ne!(name, banned, "no user of the library shall get {banned}");
        }
        let is_of_a_feature =
            ["clap", "tracing-subscriber", "tracing-appender", "prometheus-client"].contains(&name);
        assert!(
            !is_of_a_feature || value.contains("optional = true"),
            "{name} is optional: behind `cli` or `metrics`"
        );
    }
}

#[test]
fn the_import_parser_finds_every_import() {
    let code = "use crate::{\n a::{B, c::D as E},\n f,\n};\nuse crate::g::*; fn x() { \
                crate::h::i(); my_crate::no(); super::super::j::k() }";
    let names: Vec<String> = names_of_ours(Path::new("m/n.rs"), code).into_iter().collect();
    assert_eq!(names, ["a::B", "a::c::D", "f", "g::*", "h::i", "j::k"]);
    assert!(names_of_ours(Path::new("m/n.rs"), "use super::sibling::X;").is_empty());
    assert!(names_of_ours(Path::new("m/mod.rs"), "use super::other::X;").contains("other::X"));
    assert!(names_of_ours(Path::new("m.rs"), "use super::other::X;").contains("other::X"));
}
