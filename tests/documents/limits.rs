//! Checks `docs/limits.md` against the settings and the sources: every bound that clients meet has
//! a row with its value.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its subject should fail")]

use std::{collections::BTreeSet, fs, path::Path};

/// Settings that bound nothing that clients do.
const NO_LIMITS: [&str; 15] = [
    "stop-signals",
    "port",
    "addr",
    "internal-port",
    "internal-addr",
    "app-version",
    "start",
    "cleanup",
    "grace-period",
    "tcp-nodelay",
    "workers",
    "unix-mode",
    "tls-cert",
    "tls-key",
    "proxy-protocol",
];

/// Folders and files whose constants may bound clients.
const SOURCES: [&str; 9] = [
    "http",
    "internal",
    "proxy_protocol",
    "tls",
    "driver",
    "os/limits.rs",
    "settings/least.rs",
    "process.rs",
    "os/transport.rs",
];

/// Constants in these sources that bound nothing that clients do, each with its reason.
const OTHERS: [(&str, &str); 20] = [
    ("UNDECIDED_MAX", "follows from the preface of HTTP/2"),
    ("POLLS_BEFORE_CUT", "polls of a task that is cut"),
    ("SWEEP", "how often due connections are looked for"),
    ("SWEEP_STOPPING", "the same"),
    ("SWEEP_STOPPING_LEAST", "the same"),
    ("SEARCH_LEAST", "how often room is looked for"),
    ("SEARCH_MOST", "the same"),
    ("FIRST_CHECK_AFTER", "how often handshakes are looked for"),
    ("CHECK_INTERVAL_MAX", "the same"),
    ("HEAD_BUF_SIZE", "an arena for heads, whose bytes are bounded elsewhere"),
    ("HYPER_HEADERS_MAX", "a number for which the builder of hyper need not be told"),
    ("UNWRAPPED_BYTES_MAX", "which system call is used"),
    ("CUT_MAX", "the host's wait for its own threads"),
    ("CUT_LEAST", "the same"),
    ("TCP_KEEPALIVE_MIN", "the unit of the kernel"),
    ("TICK", "the wedge detector's"),
    ("FINISH_MAX", "the app's own end"),
    ("BUCKETS", "a histogram's"),
    ("FIRST_CAPACITY", "the room that a table begins with"),
    ("FIN_BYTES", "how the kernel counts a FIN"),
];

/// The source of the caps, which are the fields of one struct.
const CAPS: &str = "http/server/caps.rs";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A row of the page: its default, and the setting or constant in its last cell.
struct Row {
    default: String,
    knob: String,
}

fn rows() -> Vec<Row> {
    let page = read("docs/limits.md");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit |"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        Row { default: cells[1].to_owned(), knob: cells[3].to_owned() }
    })
    .collect()
}

/// A constant of the sources.
struct Constant {
    file: String,
    name: String,
    value: String,
}

fn constants() -> Vec<Constant> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source), &mut files);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        if file == CAPS {
            let caps = text.split("\ncaps! {").nth(1).unwrap().split("\n}").next().unwrap();
            let caps = caps.lines().filter_map(|line| line.trim().split_once(" = "));
            found.extend(caps.map(|(name, value)| Constant {
                file: file.clone(),
                name: name.to_owned(),
                value: value.trim_end_matches(';').to_owned(),
            }));
        }
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            let Some((_, declared)) = line.split_once("const ") else { continue };
            let Some((name, rest)) = declared.split_once(": ") else { continue };
            let Some((kind, value)) = rest.split_once(" = ") else { continue };
            if ["Duration", "usize", "u8", "u32", "u64"].contains(&kind) {
                let (name, value) = (name.to_owned(), value.trim_end_matches(';').to_owned());
                found.push(Constant { file: file.clone(), name, value });
            }
        }
    }
    found
}

fn collect(path: &Path, files: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else if path.exists() {
        files.push(path.to_owned());
    }
}

/// Whether a constant bounds something: all of `http/server/limits.rs` and all caps, and elsewhere
/// by the words of its name.
fn is_limit(constant: &Constant) -> bool {
    let words = [
        "MAX", "LEAST", "MOST", "ONCE", "KEPT", "TIMEOUT", "GRACE", "WAIT", "PAUSE", "LIMIT",
        "BYTES", "TURNS", "SWEEP",
    ];
    ["http/server/limits.rs", CAPS].contains(&constant.file.as_str())
        || constant.name.split('_').any(|word| words.contains(&word))
        || ["SETTLE_UNKNOWN", "SPARE_DESCRIPTORS", "TICK", "UNWRAPPED_BYTES_MAX"]
            .contains(&constant.name.as_str())
}

/// Returns the table's wording of `Duration::from_millis(250)`, `64 * 1024` or `1_000`.
fn in_words(value: &str) -> Option<String> {
    let number = |text: &str| -> Option<u64> {
        text.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().ok()).product()
    };
    if let Some(millis) = value.strip_prefix("Duration::from_millis(") {
        return Some(format!("{} ms", number(millis.trim_end_matches(')'))?));
    }
    if let Some(seconds) = value.strip_prefix("Duration::from_secs(") {
        return Some(format!("{} s", number(seconds.trim_end_matches(')'))?));
    }
    let digits = number(value)?.to_string();
    let grouped: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    Some(grouped.join(","))
}

#[test]
fn every_setting_that_bounds_clients_has_a_row_with_its_default() {
    let rows = rows();
    for setting in lameduck::SETTINGS {
        let row = rows.iter().find(|row| row.knob == format!("`--{}`", setting.flag));
        match row {
            None => assert!(
                NO_LIMITS.contains(&setting.flag),
                "docs/limits.md has no row for --{}",
                setting.flag
            ),
            // The row lists what the host always allows. The setting adds names; it has none by
            // default.
            Some(_) if setting.flag == "internal-hosts" => {}
            Some(row) => assert_eq!(row.default, setting.default, "--{}", setting.flag),
        }
    }
}

#[test]
fn every_field_of_the_limits_is_a_setting_with_a_row() {
    let source = read("src/http/server/limits.rs");
    let fields = source.split("pub struct Limits {").nth(1).unwrap().split('}').next().unwrap();
    let fields: Vec<&str> = fields
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next())
        .collect();
    assert!(fields.len() >= 9, "{fields:?}");
    let knobs: BTreeSet<String> = rows().into_iter().map(|row| row.knob).collect();
    for field in fields {
        let flag = format!("`--{}`", field.replace('_', "-"));
        assert!(knobs.contains(&flag), "docs/limits.md has no row for {flag}");
    }
}

#[test]
fn every_constant_that_bounds_clients_has_a_row_with_its_value() {
    let rows = rows();
    let constants = constants();
    let limits: Vec<&Constant> = constants.iter().filter(|constant| is_limit(constant)).collect();
    assert!(limits.len() > 40, "the sources are read");
    for Constant { file, name, value } in limits {
        if OTHERS.iter().any(|(other, reason)| other == name && !reason.is_empty()) {
            continue;
        }
        let row = rows.iter().find(|row| row.knob == format!("`{name}` ({file})"));
        let row = row.unwrap_or_else(|| {
            panic!("docs/limits.md has no row for {name} of src/{file} = {value}")
        });
        if let Some(words) = in_words(value) {
            let default = row.default.strip_prefix("every ").unwrap_or(&row.default);
            let is_same = default == words
                || default.strip_prefix(&words).is_some_and(|rest| rest.starts_with([' ', ',']));
            assert!(
                is_same,
                "{name} of src/{file} is {words}, and docs/limits.md says {default:?}"
            );
        }
    }
}

#[test]
fn every_row_is_of_an_existing_limit() {
    let flags: BTreeSet<String> =
        lameduck::SETTINGS.iter().map(|setting| format!("`--{}`", setting.flag)).collect();
    let constants: BTreeSet<String> = constants()
        .into_iter()
        .map(|constant| format!("`{}` ({})", constant.name, constant.file))
        .collect();
    for Row { knob, .. } in rows() {
        assert!(
            flags.contains(&knob) || constants.contains(&knob),
            "docs/limits.md: what is {knob}?"
        );
    }
}

#[test]
fn the_value_parser_knows_every_form() {
    assert_eq!(in_words("Duration::from_millis(250)").as_deref(), Some("250 ms"));
    assert_eq!(in_words("Duration::from_secs(1)").as_deref(), Some("1 s"));
    assert_eq!(in_words("1024 * 1024").as_deref(), Some("1,048,576"));
    assert_eq!(in_words("1_000").as_deref(), Some("1,000"));
    assert_eq!(in_words("64").as_deref(), Some("64"));
    assert_eq!(in_words("PREFACE.len() - 1"), None);
}
