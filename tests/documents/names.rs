//! Private names that were replaced by standard words must not return.
//!
//! Comments and texts may use a word such as `deadlines`; identifiers and file names may not. A
//! word that is right elsewhere is barred only where it was wrong.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const CODE: [&str; 9] = [
    "src",
    "bin",
    "sim/src",
    "sim/tests",
    "wire/src",
    "check/src",
    "fuzz/src",
    "examples",
    "tests",
];

/// Names that are barred everywhere.
const GONE: &str = "
    Admitted Audience BegunHandling Berth Board Bell Called Calendar Caller Company
    ConnectionTally Conversation Course Crew Cutter Deed DeepSocket DescriptorReserve Direct
    DrainClass Env EpollLot Fate Flaw Flight GoesOn Glance GuestIo Guests Guarded Handling
    HandlingState Handover Heed Herald Instead JobEnd Life Lot MakeRoom Manner Meter
    Moments Mood NoLot Nobody NotOurs OthersAbort PlainRequest PortClaim ProcMeter RequestTally Room
    Rooms SHELF Said Sealing Settling Shunts Side SideConfig SideDoor Sight Signs Sleeper
    SpeakHttp1 Speech Spoke Stay Story Survived TOGETHER Tally ToClose ToStay Today Torn WhenFull
    Wish Witness

    admit_at_hand at_work awaken awaken_behind counts_races is_crowded is_crowded_directly
    enlist hear_out_start_hooks hold_signals homing is_deed keep_promise lay_down last_turns
    meet_at_the_abort note_phase note_taken note_thrown_away note_written on_our_turn on_torn
    settle_lost shelve stillborn sweep_by take_home take_in torn_by want_look wants_room
    with_guests work_and_stay
";

/// Names that are barred in these folders and right elsewhere.
const GONE_FROM: &[(&str, &str)] = &[
    (
        "src/http",
        "After Asleep AsDue Counts Deadlines Deep Desk Gate Heard Home Line Link Next Order \
         Pace Piece READ_AT_ONCE Rest Seat Served TURNS Turn Writes raced tidy",
    ),
    ("src", "Answer Door Half Job Look Mark Patience Queue Slot View Late"),
    ("src/os", "Desk First Left Queue Tasks Threads Usage"),
    ("src/driver", "Half Late Slot staff remark meaning"),
    ("src/systemd", "View attend owed"),
    ("sim/src", "Ask Asked Completion End Heard Play Seat Tower clingers lurk rush"),
];

/// Modules and files of the old layout, with the folders in which their names are barred.
const FILES_GONE: &[(&str, &str)] = &[
    (
        "src",
        "answer berth board body counts crew deadlines deep direct drain_class env exclusive \
         guest_io guests line link lot meter orphans patience piece plain reserve rooms settling \
         shunt side tally words",
    ),
    ("sim", "caller company conversation exact goodbye kit ledger story"),
    ("check/src", "tally"),
    ("tests", "answers crew deadlines deep direct kit lifecycle lot side words"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files below a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// Returns the words of the code, without comments and string literals.
fn words(path: &Path) -> BTreeSet<String> {
    let code = fs::read_to_string(path).expect("a source");
    let mut words = BTreeSet::new();
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let code = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let is_of_a_word = |char: char| char.is_alphanumeric() || char == '_';
        words.extend(code.split(|char| !is_of_a_word(char)).map(str::to_owned));
    }
    words
}

fn is_this_file(path: &Path) -> bool {
    path.ends_with("tests/documents/names.rs")
}

fn assert_gone(folder: &str, names: &str) {
    for path in files(folder).iter().filter(|path| !is_this_file(path)) {
        let words = words(path);
        for name in names.split_whitespace() {
            assert!(
                !words.contains(name),
                "{}: {name} is a name that was given up",
                path.display()
            );
        }
    }
}

#[test]
fn abandoned_names_do_not_return() {
    for folder in CODE {
        assert_gone(folder, GONE);
    }
    for (folder, names) in GONE_FROM {
        assert_gone(folder, names);
    }
}

#[test]
fn abandoned_file_names_do_not_return() {
    for (folder, names) in FILES_GONE {
        for path in files(folder) {
            let stem =
                |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let module =
                if path.ends_with("mod.rs") { path.parent().and_then(stem) } else { stem(&path) };
            let name = module.unwrap_or_default();
            assert!(
                !names.split_whitespace().any(|gone| gone == name),
                "{}: {name} is a name that was given up",
                path.display()
            );
        }
    }
}

#[test]
fn the_name_parser_skips_comments_and_strings() {
    assert!(words(&root().join("tests/documents/names.rs")).contains("is_of_a_word"));
    assert!(
        !words(&root().join("tests/documents/names.rs")).contains("wrong"),
        "comments are free"
    );
}
