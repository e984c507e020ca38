//! The plot: six panels of bars, from the same numbers as the table. It follows the reader's light
//! or dark mode.

use crate::{conditions, table::number};
use serde_json::Value;
use std::fmt::Write as _;

struct Panel {
    title: &'static str,
    unit: &'static str,
    path: &'static str,
    text: fn(f64) -> String,
}

const PANELS: [Panel; 6] = [
    Panel {
        title: "Instructions a request",
        unit: "callgrind, user space",
        path: "instructions/per_request",
        text: thousands,
    },
    Panel {
        title: "CPU a request",
        unit: "µs, user and system",
        path: "load/cpu_micros",
        text: |micros| format!("{micros:.2}"),
    },
    Panel {
        title: "Memory an idle connection",
        unit: "KB, of 10,000",
        path: "idle/bytes",
        text: |bytes| format!("{:.1}", bytes / 1e3),
    },
    Panel {
        title: "Requests lost at a stop",
        unit: "written, no response; at 30 % of capacity",
        path: "draining_kept/lost",
        text: thousands,
    },
    Panel {
        title: "10,000 idle connections closed",
        unit: "ms from the stop",
        path: "idle/close_millis",
        text: thousands,
    },
    Panel {
        title: "Last response to exit",
        unit: "ms",
        path: "last_response/exit_millis",
        text: |millis| format!("{millis:.1}"),
    },
];

/// The servers drawn, and their titles.
const ROWS: [(&str, &str); 8] = [
    ("lameduck", "lameduck"),
    ("lameduck_axum", "lameduck + axum"),
    ("axum", "axum::serve"),
    ("graceful", "hyper-util"),
    ("actix", "actix-web"),
    ("nginx", "nginx"),
    ("go", "Go net/http"),
    ("bare", "bare hyper"),
];

const COLUMNS: usize = 3;
const MARGIN: f64 = 28.0;
const TOP: f64 = 84.0;
const GAP: f64 = 30.0;
const PANEL_WIDTH: f64 = 336.0;
const HEAD: f64 = 46.0;
const ROW: f64 = 23.0;
const NAMES: f64 = 136.0;
/// Space for the number after the longest bar.
const NUMBER: f64 = 52.0;

const STYLE: &str = "
.card{fill:#fff;stroke:#d9dee5}.title{fill:#1b2430;font-size:18px;font-weight:600}.head{fill:#1b2430;font-size:13.5px;font-weight:600}
.quiet{fill:#66717f;font-size:11.5px}.name{fill:#3d4855;font-size:12px}.ours{fill:#1b2430;font-weight:600}
.number{fill:#3d4855;font-size:11.5px;font-variant-numeric:tabular-nums}.track{stroke:#e4e8ed}.bar{fill:#b3bdc9}.bar.us{fill:#e0921b}
@media(prefers-color-scheme:dark){.card{fill:#10161d;stroke:#2b3541}.title,.head,.ours{fill:#eef2f6}.quiet{fill:#8f9baa}
.name,.number{fill:#c2ccd6}.track{stroke:#27313c}.bar{fill:#4d5a69}.bar.us{fill:#f2aa3c}}
";

/// Returns an SVG document.
pub fn draw(results: &Value) -> String {
    let servers = results["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let find = |name: &str| servers.iter().find(|server| server["name"] == name);
    let rows: Vec<(&str, &Value)> =
        ROWS.iter().filter_map(|(name, title)| Some((*title, find(name)?))).collect();
    let panel_height = HEAD + ROW * rows.len() as f64;
    let lines = PANELS.len().div_ceil(COLUMNS) as f64;
    let width = 2.0 * MARGIN + COLUMNS as f64 * (PANEL_WIDTH + GAP) - GAP;
    let height = TOP + lines * (panel_height + GAP) - GAP + MARGIN;
    let mut svg = String::new();
    let _ = write!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif">
<title>lameduck beside its peers</title>
<style>{STYLE}</style>
<rect class="card" x="0.5" y="0.5" width="{}" height="{}" rx="12"/>
<text class="title" x="{MARGIN}" y="38">lameduck beside its peers</text>
<text class="quiet" x="{MARGIN}" y="58">{}</text>
"#,
        width - 1.0,
        height - 1.0,
        conditions::caption(&results["run"]),
    );
    for (index, panel) in PANELS.iter().enumerate() {
        let x = MARGIN + (index % COLUMNS) as f64 * (PANEL_WIDTH + GAP);
        let y = TOP + (index / COLUMNS) as f64 * (panel_height + GAP);
        draw_panel(&mut svg, panel, &rows, x, y);
    }
    svg + "</svg>\n"
}

fn draw_panel(svg: &mut String, panel: &Panel, rows: &[(&str, &Value)], x: f64, y: f64) {
    let Panel { title, unit, path, text } = panel;
    let most = rows.iter().filter_map(|(_, server)| number(server, path)).fold(0.0, f64::max);
    let left = x + NAMES;
    let _ = writeln!(
        svg,
        r#"<text class="head" x="{x}" y="{}">{title}</text><text class="quiet" x="{x}" y="{}">{unit}</text>"#,
        y + 12.0,
        y + 29.0,
    );
    for (index, (name, server)) in rows.iter().enumerate() {
        let middle = y + HEAD + ROW * (index as f64 + 0.5);
        let ours = name.starts_with("lameduck");
        let _ = write!(
            svg,
            r#"<text class="name{}" x="{x}" y="{:.1}">{name}</text>"#,
            if ours { " ours" } else { "" },
            middle + 4.0,
        );
        let Some(value) = number(server, path) else {
            let _ = writeln!(
                svg,
                r#"<text class="quiet" x="{}" y="{:.1}">–</text>"#,
                left + 6.0,
                middle + 4.0
            );
            continue;
        };
        let length =
            if most > 0.0 { (value / most).max(0.0) * (PANEL_WIDTH - NAMES - NUMBER) } else { 0.0 };
        let _ = writeln!(
            svg,
            r#"<rect class="bar{}" x="{left}" y="{:.1}" width="{length:.1}" height="14" rx="2"/><text class="number{}" x="{:.1}" y="{:.1}">{}</text>"#,
            if ours { " us" } else { "" },
            middle - 7.0,
            if ours { " ours" } else { "" },
            left + length + 6.0,
            middle + 4.0,
            text(value),
        );
    }
    let (from, to) = (y + HEAD, y + HEAD + ROW * rows.len() as f64);
    let _ = writeln!(
        svg,
        r#"<line class="track" x1="{left}" x2="{left}" y1="{from:.1}" y2="{to:.1}"/>"#
    );
}

/// Formats a number as `12,345`.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
