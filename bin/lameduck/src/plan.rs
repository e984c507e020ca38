//! `--print-plan`: the shutdown sequence with its worst case.

use humantime::format_duration;
use lameduck::Settings;
use std::{
    io::{self, Write},
    time::Duration,
};

/// Prints the plan on standard output.
pub(crate) fn print(settings: &Settings) -> io::Result<()> {
    io::stdout().write_all(text(settings).as_bytes())
}

/// Returns the plan as text: one line per step, with its latest begin and end.
fn text(settings: &Settings) -> String {
    let plan = &settings.plan;
    let steps = [
        ("lame duck", plan.lame_duck, "not ready, still serving; always lasts in full"),
        ("drain", plan.drain, "listeners closed, requests in flight finish"),
        (
            "streams",
            plan.streams,
            "at the same time as the drain: long streams end, each at its moment",
        ),
        (
            "cancel",
            plan.cancel,
            "contexts cancelled, handlers may return, then the rest is aborted",
        ),
        ("clean up", plan.cleanup, "stop hooks run in reverse order"),
        ("internal close", plan.internal_close, "probes get responses until the end of this step"),
    ];
    let (mut at, mut drain_begins) = (Duration::ZERO, Duration::ZERO);
    let mut text = String::from("step            latest begin     latest end     what happens\n");
    for (name, span, what) in steps {
        // Streams end during the drain, and what follows waits for the longer of both.
        match name {
            "drain" => drain_begins = at,
            "streams" if span.is_zero() => continue,
            "streams" => at = drain_begins,
            _ => {}
        }
        let end = at + span;
        text += &format!(
            "{name:<16}{:<17}{:<15}{what}\n",
            format_duration(at).to_string(),
            format_duration(end).to_string()
        );
        at = if name == "streams" { end.max(drain_begins + plan.drain) } else { end };
    }
    text += &format!("worst case      {}\n", format_duration(plan.worst_case()));
    text += &match settings.grace_period {
        Duration::ZERO => "grace period    not checked\n".to_owned(),
        grace_period => format!("grace period    {}\n", format_duration(grace_period)),
    };
    text
}
