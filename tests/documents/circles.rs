//! Imports form no circle in `src/`, and inside `src/http` they go down its five floors.

#![expect(clippy::unwrap_used, reason = "sources that cannot be read should fail the test")]

use super::architecture::{code_of, paths_after, root};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// The floors of `src/http`. A file imports from its own floor and from lower ones.
const FLOORS: [(&str, u8); 6] = [
    ("worker", 5),
    ("connection", 4),
    ("fast_path", 3),
    ("exchange", 2),
    ("tower", 2),
    ("server", 1),
];

/// The modules of the crate, such as `http::server::date`, with their code but without test
/// modules.
type Modules = BTreeMap<String, String>;

fn modules() -> Modules {
    let mut modules = Modules::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(root().join("src")).unwrap().with_extension("");
            let mut parts: Vec<&str> = relative.iter().map(|part| part.to_str().unwrap()).collect();
            if parts.last() == Some(&"mod") {
                parts.pop();
            }
            let code = code_of(&fs::read_to_string(&path).unwrap());
            let code = code.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
            modules.insert(parts.join("::"), code);
        }
    }
    modules
}

/// Resolves a path in the code of `module` to a path from the crate's root.
fn from_root(module: &str, prefix: &str, path: &str) -> String {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut parts: Vec<&str> = path.split("::").collect();
    match prefix {
        "crate" => base.clear(),
        "super" => drop(base.pop()),
        _ => {}
    }
    while parts.first() == Some(&"super") {
        base.pop();
        parts.remove(0);
    }
    base.extend(parts);
    base.join("::")
}

/// Returns the module that defines the item of a path. A re-export is resolved to its origin.
fn holder<'a>(modules: &'a Modules, path: &str) -> Option<&'a str> {
    let parts: Vec<&str> = path.split("::").collect();
    let (module, code, item) = (1..=parts.len()).rev().find_map(|len| {
        let (module, code) = modules.get_key_value(&parts[..len].join("::"))?;
        Some((module, code, parts.get(len)))
    })?;
    let Some(item) = item else { return Some(module) };
    for statement in code.split("pub").skip(1) {
        let Some((head, uses)) = statement.split_once("use ") else { continue };
        if !matches!(head.trim(), "" | "(crate)" | "(super)") {
            continue;
        }
        let uses = uses.split(';').next().unwrap();
        let prefix = ["crate", "self", "super"]
            .into_iter()
            .find(|prefix| uses.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::")));
        let (prefix, paths) = match prefix {
            Some(prefix) => (prefix, paths_after(uses, prefix)),
            // A submodule, as in `pub use date::Date`.
            None => ("self", paths_after(&format!("self::{uses}"), "self")),
        };
        let found = paths.iter().find(|path| path.rsplit("::").next() == Some(item));
        if let Some(path) = found {
            let path = from_root(module, prefix, path);
            return (path != format!("{module}::{item}"))
                .then(|| holder(modules, &path))
                .flatten()
                .or(Some(module));
        }
    }
    Some(module)
}

/// Returns the modules that each module imports from.
fn imports(modules: &Modules) -> BTreeMap<&str, BTreeSet<&str>> {
    modules
        .iter()
        .map(|(module, code)| {
            let mut imported = BTreeSet::new();
            for prefix in ["crate", "super", "self"] {
                for path in paths_after(code, prefix) {
                    let path = from_root(module, prefix, &path);
                    imported.extend(holder(modules, &path).filter(|other| other != module));
                }
            }
            (module.as_str(), imported)
        })
        .collect()
}

#[test]
fn the_sources_have_no_import_circle() {
    let modules = modules();
    let mut left = imports(&modules);
    // A module that imports no remaining module is in no circle.
    loop {
        let free: BTreeSet<&str> = left
            .iter()
            .filter(|(_, imported)| imported.iter().all(|other| !left.contains_key(other)))
            .map(|(module, _)| *module)
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module, _| !free.contains(module));
    }
    // A module that no remaining module imports is in no circle either.
    loop {
        let imported: BTreeSet<&str> = left.values().flatten().copied().collect();
        let count = left.len();
        left.retain(|module, _| imported.contains(module));
        if left.len() == count {
            break;
        }
    }
    let names: BTreeSet<&str> = left.keys().copied().collect();
    let circles: Vec<String> = left
        .iter()
        .map(|(module, imported)| {
            format!("{module} imports {:?}", imported.intersection(&names).collect::<Vec<_>>())
        })
        .collect();
    assert!(circles.is_empty(), "an import circle:\n{}", circles.join("\n"));
}

#[test]
fn imports_in_http_go_down_only() {
    let floor_of = |module: &str| {
        let folder = module.strip_prefix("http::")?.split("::").next()?;
        FLOORS.iter().find(|(name, _)| *name == folder).map(|(_, floor)| *floor)
    };
    let modules = modules();
    for (folder, _) in FLOORS {
        assert!(modules.contains_key(&format!("http::{folder}")), "src/http/{folder} is gone");
    }
    let mut wrong = Vec::new();
    for (module, imported) in imports(&modules) {
        let Some(floor) = floor_of(module) else { continue };
        for other in imported {
            if floor_of(other).is_some_and(|of_other| of_other > floor) {
                wrong.push(format!("{module} imports {other}, which is above it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_module_parser_resolves_imports_and_re_exports() {
    let modules: Modules = [
        ("a", "pub use b::{Item, Other};\npub(crate) use self::c::Third;"),
        ("a::b", "use crate::a::Third;"),
        ("a::c", "use super::Item;"),
    ]
    .map(|(module, code)| (module.to_owned(), code.to_owned()))
    .into();
    assert_eq!(holder(&modules, "a::Item"), Some("a::b"));
    assert_eq!(holder(&modules, "a::Third"), Some("a::c"));
    assert_eq!(holder(&modules, "a::Unknown"), Some("a"));
    assert_eq!(holder(&modules, "z::Item"), None);
    let imports = imports(&modules);
    assert_eq!(imports["a::b"], BTreeSet::from(["a::c"]));
    assert_eq!(imports["a::c"], BTreeSet::from(["a::b"]));
}
