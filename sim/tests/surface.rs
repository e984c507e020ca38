//! Holds the declared surface against the sources: each public item that users' code calls has an
//! entry that says how a scenario exercises it, or why none does.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its subject should fail")]

use lameduck_sim::explore::{SURFACE, Seen};
use std::{collections::BTreeSet, fs, path::Path};
use syn::{ImplItem, Item, Type, Visibility};

/// The types whose items users' code calls while a host runs, each with its source.
const TYPES: [(&str, &str); 10] = [
    ("RequestContext", "http/exchange/context.rs"),
    ("Body", "http/exchange/request_body.rs"),
    ("TaskContext", "background.rs"),
    ("BackgroundTask", "background.rs"),
    ("ReadinessCheck", "readiness.rs"),
    ("Hook", "hook.rs"),
    ("ShutdownHandle", "host_config.rs"),
    ("RouteTimeout", "http/tower/route_timeout.rs"),
    ("StreamShutdown", "http/exchange/stream_shutdown.rs"),
    ("Limits", "http/server/limits.rs"),
];

/// An enum that is no type of its own file.
const ENUMS: [(&str, &str); 2] = [
    ("StreamShutdown", "http/exchange/stream_shutdown.rs"),
    ("HalfClose", "http/server/limits.rs"),
];

fn source(path: &str) -> syn::File {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src").join(path);
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap()
}

fn methods(name: &str, path: &str) -> Vec<String> {
    let is_it = |of: &Type| matches!(of, Type::Path(path) if path.path.is_ident(name));
    let mut found = Vec::new();
    for item in source(path).items {
        let Item::Impl(item) = item else { continue };
        if item.trait_.is_some() || !is_it(&item.self_ty) {
            continue;
        }
        for method in item.items {
            if let ImplItem::Fn(method) = method
                && matches!(method.vis, Visibility::Public(_))
            {
                found.push(format!("{name}::{}", method.sig.ident));
            }
        }
    }
    found
}

fn variants(name: &str, path: &str) -> Vec<String> {
    let items = source(path).items.into_iter();
    let of = items.filter_map(|item| {
        let Item::Enum(item) = item else { return None };
        (item.ident == name).then_some(item.variants)
    });
    of.flatten().map(|variant| format!("{name}::{}", variant.ident)).collect()
}

#[test]
fn every_public_item_has_an_entry_and_every_entry_an_item() {
    let mut items: BTreeSet<String> =
        TYPES.iter().flat_map(|(name, path)| methods(name, path)).collect();
    items.extend(ENUMS.iter().flat_map(|(name, path)| variants(name, path)));
    assert!(items.len() > 40, "the sources are read: {items:?}");
    let entries: BTreeSet<String> = SURFACE.iter().map(|(item, _)| (*item).to_owned()).collect();
    assert_eq!(items, entries);
}

#[test]
fn what_no_world_exercises_has_a_reason() {
    for (item, seen) in SURFACE {
        assert!(!matches!(seen, Seen::Nowhere("")), "{item}");
    }
}
