//! Tables of the status page: how many requests and connections there are and were.

use super::format::{Grouped, number, words};
use serde_json::Value;
use std::fmt::{self, Write};

/// A number of the status: its name, and whether it is a gauge. Others only grow.
pub(super) type Count = (&'static str, bool);

pub(super) const REQUESTS: [Count; 7] = [
    ("started", false),
    ("in_flight", true),
    ("finished", false),
    ("timed_out", false),
    ("aborted", false),
    ("gone", false),
    ("panicked", false),
];

pub(super) const STATES: [Count; 6] = [
    ("opening", true),
    ("parked", true),
    ("http1", true),
    ("http2", true),
    ("lingering", true),
    ("upgraded", true),
];

pub(super) const CONNECTIONS: [Count; 15] = [
    ("accepted", false),
    ("drained", false),
    ("reset", false),
    ("close_races", false),
    ("unannounced", false),
    ("upgraded", false),
    ("evicted", false),
    ("first_byte_timeouts", false),
    ("proxy_headers_refused", false),
    ("handshakes", false),
    ("handshakes_failed", false),
    ("handshake_timeouts", false),
    ("send_timeouts", false),
    ("body_timeouts", false),
    ("accept_errors", false),
];

/// A table of numbers. The columns of the last minutes are filled by the script.
pub(super) fn counts(
    page: &mut String,
    title: &str,
    values: &Value,
    counts: &[Count],
) -> fmt::Result {
    let are_gauges = counts.iter().all(|(_, is_gauge)| *is_gauge);
    let (now, minute) = if are_gauges { ("now", "") } else { ("all", "last minute") };
    write!(
        page,
        "<section{}><h2>{title}</h2><table class=\"counts\"><thead><tr><th></th>\
         <th class=\"n\">{now}</th><th class=\"n scripted\">{minute}</th>\
         <th class=\"scripted\">last 5 min</th></tr></thead><tbody>",
        if counts.len() > 8 { " class=\"wide\"" } else { "" }
    )?;
    for (name, is_gauge) in counts {
        let (key, value) = (format!("{title}/{name}"), number(&values[*name]));
        let class = match (*name, value) {
            ("timed_out" | "aborted" | "panicked" | "reset" | "accept_errors", 1..) => "n bad",
            (_, 0) => "n soft",
            _ => "n",
        };
        let last = if *is_gauge { String::new() } else { format!(" data-last=\"{key}\"") };
        let kind = if *is_gauge { "gauge" } else { "sum" };
        write!(
            page,
            "<tr><th>{}</th>\
             <td class=\"{class}\" data-count=\"{key}\" data-value=\"{value}\">{}</td>\
             <td class=\"n scripted\"{last}></td>\
             <td class=\"scripted\" data-of=\"{key}\" data-kind=\"{kind}\">\
             <svg class=\"spark\" viewBox=\"0 0 300 22\" preserveAspectRatio=\"none\"><path/></svg>\
             </td></tr>",
            words(name),
            Grouped(value)
        )?;
    }
    page.push_str("</tbody></table></section>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS, Count, REQUESTS};
    use crate::{
        http::{ConnectionStats, RequestStats},
        report::{connections_json, requests_json},
    };
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_tables_have_every_count_of_the_status() {
        let names = |counts: &[Count]| -> BTreeSet<String> {
            counts.iter().map(|(name, _)| (*name).to_owned()).collect()
        };
        let keys = |value: Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(names(&REQUESTS), keys(requests_json(&RequestStats::default())));
        let mut connections = keys(connections_json(&ConnectionStats::default()));
        assert!(connections.remove("open"), "the states have it");
        assert_eq!(names(&CONNECTIONS), connections);
    }
}
