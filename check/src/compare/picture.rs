//! The picture: one row per server, one column per scenario.

use super::{Graded, scenarios};
use crate::scenario::all;
use lameduck_wire::timeline::escape;
use std::fmt::Write;

const LEFT: usize = 128;
const TOP: usize = 190;
const CELL: usize = 18;
/// Space between two families.
const GAP: usize = 8;
const FOOT: usize = 60;

const STYLE: &str = "\
<style>
.card{fill:#fff;stroke:#d9dee5}.title{fill:#1b2430;font-size:17px;font-weight:600}
.name{fill:#3d4855;font-size:12px}.quiet{fill:#66717f;font-size:11px}
.letter{fill:#fff;font-size:10px;font-weight:700;text-anchor:middle}
.pass{fill:#3f9b6d}.must{fill:#c2362f}.should{fill:#e08a1e}.info{fill:#8b97a5}
.skip{fill:#eef1f4}.error{fill:#7a4fb5}
@media(prefers-color-scheme:dark){.card{fill:#10161d;stroke:#2b3541}.title{fill:#eef2f6}
.name{fill:#c2ccd6}.quiet{fill:#8f9baa}.skip{fill:#1d2630}}
</style>
";

/// Returns the class of a cell and its letter.
fn cell(verdict: &str, grade: &str) -> (&'static str, &'static str) {
    match (verdict, grade) {
        ("pass", _) => ("pass", ""),
        ("fail", "MUST") => ("must", "M"),
        ("fail", "SHOULD") => ("should", "S"),
        ("fail", _) => ("info", "i"),
        ("error", _) => ("error", "?"),
        _ => ("skip", ""),
    }
}

/// Returns the picture as SVG.
pub(super) fn draw(graded: &[Graded<'_>]) -> String {
    let rows: Vec<_> = graded.iter().filter(|(_, result)| !scenarios(result).is_empty()).collect();
    let columns = columns(graded);
    let width = columns.last().map_or(LEFT, |(_, x)| x + CELL) + 60;
    let height = TOP + CELL * rows.len() + FOOT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" \
         font-family=\"ui-sans-serif, system-ui, Helvetica, Arial, sans-serif\">\n\
         <title>What fails in the shutdown of which server</title>\n{STYLE}\
         <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\"/>\n\
         <text class=\"title\" x=\"20\" y=\"32\">What fails in the shutdown</text>\n",
        width - 1,
        height - 1
    );
    // Writing to a string cannot fail.
    for (name, x) in &columns {
        let (x, y) = (x + CELL / 2 + 4, TOP - 6);
        let _ = writeln!(
            out,
            "<text class=\"quiet\" transform=\"translate({x} {y}) rotate(-60)\">{name}</text>"
        );
    }
    for (n, (entry, result)) in rows.iter().enumerate() {
        let y = TOP + CELL * n;
        let at = y + CELL - 5;
        let server = escape(&entry.name);
        let _ = writeln!(out, "<text class=\"name\" x=\"20\" y=\"{at}\">{server}</text>");
        for (name, x) in &columns {
            let scenario = scenarios(result).iter().find(|scenario| scenario["name"] == *name);
            let word = |key: &str| scenario.and_then(|one| one[key].as_str()).unwrap_or_default();
            square(&mut out, *x, y, cell(word("verdict"), word("grade")));
        }
    }
    legend(&mut out, TOP + CELL * rows.len() + 22);
    out += "</svg>\n";
    out
}

/// Returns the scenarios that were tried with any server, and their places, with a gap between two
/// families.
fn columns(graded: &[Graded<'_>]) -> Vec<(&'static str, usize)> {
    let is_tried = |name: &str| {
        let results = graded.iter().flat_map(|(_, result)| scenarios(result));
        results.filter(|one| one["verdict"] != "skip").any(|one| one["name"] == name)
    };
    let mut columns = Vec::new();
    let (mut x, mut family) = (LEFT, "");
    for scenario in all().filter(|scenario| is_tried(scenario.name)) {
        if !family.is_empty() && family != scenario.family() {
            x += GAP;
        }
        family = scenario.family();
        columns.push((scenario.name, x));
        x += CELL;
    }
    columns
}

fn square(out: &mut String, x: usize, y: usize, (class, letter): (&str, &str)) {
    let side = CELL - 2;
    let _ = write!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"3\"/>"
    );
    if !letter.is_empty() {
        let (x, y) = (x + side / 2, y + side - 4);
        let _ = write!(out, "<text class=\"letter\" x=\"{x}\" y=\"{y}\">{letter}</text>");
    }
    out.push('\n');
}

fn legend(out: &mut String, y: usize) {
    let kinds = [
        ("passed", cell("pass", "")),
        ("a MUST failed", cell("fail", "MUST")),
        ("a SHOULD failed", cell("fail", "SHOULD")),
        ("failed, only reported", cell("fail", "INFO")),
        ("not tried", cell("skip", "")),
    ];
    let mut x = LEFT;
    for (name, kind) in kinds {
        square(out, x, y, kind);
        let (at, base) = (x + CELL + 4, y + CELL - 5);
        let _ = writeln!(out, "<text class=\"quiet\" x=\"{at}\" y=\"{base}\">{name}</text>");
        x += CELL + 30 + 6 * name.len();
    }
}
