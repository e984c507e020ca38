//! `GET /`: the status as a page for a browser, which loads nothing else.
//!
//! It is made from the JSON of `/status`, and is complete without the script. The script fetches it
//! again every two seconds, and draws the counts of the last five minutes, which only the script
//! keeps. The content security policy allows this style and this script alone, by their hashes.

mod count_tables;
mod format;

use count_tables::{CONNECTIONS, REQUESTS, STATES, counts};
use format::{Escaped, Grouped, Span, number, strings, text, words};
use serde_json::Value;
use std::fmt::{self, Write};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The value of `Content-Security-Policy`. A test compares the hashes with the two files.
pub(super) const POLICY: &str = "default-src 'none'; style-src \
     'sha256-zLgliR3zHhtszVJ++Hb1/YeKSGiRfWhTJm4JCI6rkIc='; script-src \
     'sha256-7+igvM1QDG2Vih7Y/ayuxtIW4EOXX5CCH8YuT7+RHhE='; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// Writes the page of this status.
///
/// # Errors
/// None: text is written into memory.
pub(super) fn write(status: &Value, paths: &[&str]) -> Result<String, fmt::Error> {
    let mut page = String::with_capacity(16 * 1024);
    let (phase, version) = (text(&status["phase"]), text(&status["app_version"]));
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}{}{}</title><style>{STYLE}</style>\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript></head>\
         <body><div id=\"lost\">No response: the process has exited, or cannot be reached. This is \
         its last state.</div><main>",
        Escaped(&words(phase)),
        if version.is_empty() { "" } else { " · " },
        Escaped(version)
    )?;
    head(&mut page, status)?;
    plan(&mut page, status)?;
    waiting(&mut page, status)?;
    phases(&mut page, status)?;
    checks(&mut page, status)?;
    certificate(&mut page, &status["certificate"])?;
    counts(&mut page, "Requests", &status["requests"], &REQUESTS)?;
    counts(&mut page, "Open connections", &status["connections_by_state"], &STATES)?;
    counts(&mut page, "Connections since the start", &status["connections"], &CONNECTIONS)?;
    page.push_str("<section class=\"wide\"><h2>More</h2><ul class=\"links\">");
    for path in paths {
        write!(page, "<li><a href=\"{0}\">{0}</a></li>", Escaped(path))?;
    }
    writeln!(page, "</ul></section></main><script>{SCRIPT}</script></body></html>")?;
    Ok(page)
}

/// The phase, what the probes return, and the addresses.
fn head(page: &mut String, status: &Value) -> fmt::Result {
    let phase = words(text(&status["phase"]));
    write!(page, "<header><h1>{}</h1><div class=\"chips\">", Escaped(&phase))?;
    for (name, words) in [
        ("ready", ["ready", "not ready"]),
        ("serving", ["serving", "not serving"]),
        ("live", ["alive", "wedged"]),
    ] {
        let (class, word) =
            if status[name] == true { ("good", words[0]) } else { ("bad", words[1]) };
        write!(page, "<span class=\"chip {class}\">{word}</span>")?;
    }
    let addresses = strings(&status["addresses"]["main"]).collect::<Vec<_>>().join(", ");
    page.push_str("</div><div class=\"facts\">");
    let version = text(&status["app_version"]);
    if !version.is_empty() {
        write!(page, "version {} · ", Escaped(version))?;
    }
    write!(
        page,
        "up for {} · serves {} · internal {}</div></header>",
        Span(&status["up_for_ms"]),
        Escaped(&addresses),
        Escaped(text(&status["addresses"]["internal"]))
    )
}

const STEPS: [(&str, &str); 5] = [
    ("lame_duck", "lame duck: serves everything, is no longer ready"),
    ("drain", "drain: requests in flight finish"),
    ("cancel", "cancel: contexts are cancelled, then the rest is cut"),
    ("cleanup", "clean up: stop hooks"),
    ("internal_close", "close of this server"),
];

/// The plan as the timeline of a stop, with a mark at the present if a stop is in progress.
fn plan(page: &mut String, status: &Value) -> fmt::Result {
    let plan = &status["plan"];
    let of = |step: &str| {
        let limit = number(&plan[format!("{step}_ms")]);
        // Long streams may outlast the drain of the requests.
        if step == "drain" { limit.max(number(&plan["streams_ms"])) } else { limit }
    };
    let all = STEPS.iter().map(|(step, _)| of(step)).sum::<u64>().max(1);
    let left = &status["must_exit_within_ms"];
    let title = if left.is_null() { "If it were stopped now" } else { "The stop in progress" };
    write!(page, "<section class=\"wide\"><h2>{title}</h2><p>")?;
    if left.is_null() {
        write!(page, "It would exit within <b>{}</b>. ", Span(&plan["worst_case_ms"]))?;
        page.push_str(
            "Only the lame duck delay lasts in full; each later step ends when nothing is left to \
             wait for.",
        );
    } else {
        write!(page, "It will have exited within <b>{}</b>.", Span(left))?;
    }
    page.push_str(
        "</p><svg class=\"plan\" viewBox=\"0 0 1000 26\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"timeline\">",
    );
    let mut x = 0.0;
    for (step, _) in STEPS {
        let width = 1000.0 * of(step) as f64 / all as f64;
        write!(page, "<rect class=\"{step}\" x=\"{x:.1}\" width=\"{width:.1}\" height=\"26\"/>")?;
        x += width;
    }
    if !left.is_null() {
        let done = all.saturating_sub(number(left)) as f64 / all as f64;
        write!(page, "<rect class=\"now\" x=\"{:.1}\" width=\"4\" height=\"26\"/>", 996.0 * done)?;
    }
    page.push_str("</svg><ul class=\"legend\">");
    for (step, words) in STEPS {
        write!(
            page,
            "<li><svg viewBox=\"0 0 1 1\"><rect class=\"{step}\" width=\"1\" height=\"1\"/></svg>\
             {words} <b>{}</b>",
            Span(&plan[format!("{step}_ms")])
        )?;
        if step == "drain" && number(&plan["streams_ms"]) > 0 {
            write!(page, ", and long streams <b>{}</b>", Span(&plan["streams_ms"]))?;
        }
        page.push_str("</li>");
    }
    page.push_str("</ul></section>");
    Ok(())
}

/// What a stop waits for, or would wait for, by name.
fn waiting(page: &mut String, status: &Value) -> fmt::Result {
    let (waiting, hook) = (&status["waiting_for"], &status["hook"]);
    let total = number(&waiting["total"]);
    let title = if status["must_exit_within_ms"].is_null() {
        "A stop would wait for"
    } else {
        "The stop waits for"
    };
    write!(page, "<section class=\"wide\"><h2>{title}</h2>")?;
    if !hook.is_null() {
        write!(
            page,
            "<p>The {} hook <b>{}</b> has been running for {}.</p>",
            Escaped(text(&hook["stage"])),
            Escaped(text(&hook["name"])),
            Span(&hook["running_for_ms"])
        )?;
    }
    let oldest = waiting["oldest"].as_array().map_or(&[][..], Vec::as_slice);
    if total == 0 && hook.is_null() {
        page.push_str("<p class=\"soft\">nothing</p>");
    }
    if !oldest.is_empty() {
        page.push_str(
            "<table><thead><tr><th>what</th><th>name</th><th class=\"n\">for</th></tr></thead>\
             <tbody>",
        );
        for item in oldest {
            write!(
                page,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td></tr>",
                Escaped(text(&item["kind"])),
                Escaped(text(&item["name"])),
                Span(&item["age_ms"])
            )?;
        }
        page.push_str("</tbody></table>");
    }
    let unnamed = total.saturating_sub(oldest.len() as u64);
    if unnamed > 0 {
        write!(
            page,
            "<p class=\"soft\">{}{unnamed} that have no name here</p>",
            if oldest.is_empty() { "" } else { "and " }
        )?;
    }
    page.push_str("</section>");
    Ok(())
}

/// The phases until now.
fn phases(page: &mut String, status: &Value) -> fmt::Result {
    page.push_str(
        "<section><h2>Phases</h2><table><thead><tr><th>phase</th>\
         <th class=\"n\">entered after</th><th class=\"n\">lasted</th></tr></thead><tbody>",
    );
    let phases = status["phases"].as_array().map_or(&[][..], Vec::as_slice);
    for (n, phase) in phases.iter().enumerate() {
        let current = if n + 1 == phases.len() { " …" } else { "" };
        write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}{current}</td></tr>",
            Escaped(&words(text(&phase["phase"]))),
            Span(&phase["after_ms"]),
            Span(&phase["lasted_ms"])
        )?;
    }
    page.push_str("</tbody></table></section>");
    Ok(())
}

/// The readiness checks, and why the probes fail.
fn checks(page: &mut String, status: &Value) -> fmt::Result {
    page.push_str("<section><h2>Readiness</h2>");
    for (probe, words) in
        [("ready", "not ready"), ("serving", "not serving"), ("live", "not alive")]
    {
        for reason in strings(&status["reasons"][probe]) {
            write!(page, "<p class=\"bad\">{words}: {}</p>", Escaped(reason))?;
        }
    }
    let checks = status["checks"].as_array().map_or(&[][..], Vec::as_slice);
    if checks.is_empty() {
        page.push_str("<p class=\"soft\">no checks are registered</p></section>");
        return Ok(());
    }
    page.push_str("<table><thead><tr><th>check</th><th></th></tr></thead><tbody>");
    for check in checks {
        let (class, word) = if check["passes"] == true {
            ("good", "passes")
        } else {
            ("bad", text(&check["reason"]))
        };
        write!(
            page,
            "<tr><td>{}</td><td class=\"{class}\">{}</td></tr>",
            Escaped(text(&check["name"])),
            Escaped(word)
        )?;
    }
    page.push_str("</tbody></table></section>");
    Ok(())
}

/// The certificate of the main server, if it was read from files.
fn certificate(page: &mut String, certificate: &Value) -> fmt::Result {
    if certificate.is_null() {
        return Ok(());
    }
    page.push_str("<section><h2>TLS certificate</h2>");
    match certificate["expires_in_ms"].as_u64() {
        Some(0) => page.push_str("<p class=\"bad\">It has expired.</p>"),
        Some(_) => {
            write!(page, "<p>It expires in <b>{}</b>.</p>", Span(&certificate["expires_in_ms"]))?;
        }
        None => page.push_str("<p class=\"warn\">Its expiry cannot be read.</p>"),
    }
    if certificate["last_reload_ms_ago"].is_null() {
        page.push_str("<p>Its files were loaded at the start, and not again.</p>");
    } else {
        let ago = Span(&certificate["last_reload_ms_ago"]);
        write!(page, "<p>It was last replaced <b>{ago}</b> ago.</p>")?;
    }
    let refused = number(&certificate["refused"]);
    if refused > 0 {
        write!(
            page,
            "<p class=\"bad\">Changed files that could not be used: {}. The log has the \
             reason.</p>",
            Grouped(refused)
        )?;
    }
    page.push_str("</section>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sha2::{Digest, Sha256};

    /// RFC 4648 §4, for the 32 bytes of a hash.
    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for n in 0..=chunk.len() {
                text.push(char::from(LETTERS[(group >> (18 - 6 * n) & 63) as usize]));
            }
        }
        text + &"=".repeat((3 - bytes.len() % 3) % 3)
    }

    #[test]
    fn the_policy_allows_this_style_and_this_script() {
        for (directive, file) in [("style-src", STYLE), ("script-src", SCRIPT)] {
            let hash = base64(&Sha256::digest(file.as_bytes()));
            let allowed = format!("{directive} 'sha256-{hash}';");
            assert!(POLICY.contains(&allowed), "page.rs: POLICY must have {allowed}");
        }
    }

    #[test]
    fn the_timeline_has_a_mark_at_the_present_only_during_a_stop() {
        let page = |left: Value| {
            let plan = json!({"lame_duck_ms": 5_000, "drain_ms": 10_000, "cancel_ms": 5_000});
            write(&json!({"plan": plan, "must_exit_within_ms": left}), &[]).unwrap()
        };
        assert!(!page(Value::Null).contains("class=\"now\""));
        let stopping = page(json!(15_000));
        assert!(stopping.contains("class=\"now\" x=\"249.0\""), "{stopping}");
    }

    // A service without a version had "version  · up for …" on its page.
    #[test]
    fn a_version_is_shown_if_there_is_one() {
        let page_of = |version| {
            let status = json!({"phase": "serving", "app_version": version});
            write(&status, &[]).unwrap()
        };
        let (with, without) = (page_of("1.4"), page_of(""));
        assert!(with.contains("<title>serving · 1.4</title>") && with.contains("version 1.4 · up"));
        assert!(without.contains("<title>serving</title>") && !without.contains("version"));
    }

    #[test]
    fn names_that_clients_choose_are_text() {
        let oldest =
            json!({"kind": "request", "name": "GET /<script>alert('1')</script>&\"", "age_ms": 1});
        let status = json!({"phase": "lame_duck", "waiting_for": {"total": 1, "oldest": [oldest]}});
        let page = write(&status, &["/status"]).unwrap();
        assert_eq!(page.matches("<script>").count(), 1, "its own");
        assert!(
            page.contains("GET /&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;"),
            "{page}"
        );
        assert!(page.contains("<h1>lame duck</h1>") && page.contains("href=\"/status\""), "{page}");
    }

    #[test]
    fn the_drain_of_the_timeline_holds_the_streams() {
        let page = |streams: u64| {
            let plan = json!({"lame_duck_ms": 5_000, "drain_ms": 10_000, "streams_ms": streams,
                "cancel_ms": 5_000, "worst_case_ms": 10_000 + streams.max(10_000)});
            write(&json!({"plan": plan}), &[]).unwrap()
        };
        let without = page(0);
        assert!(without.contains("class=\"drain\" x=\"250.0\" width=\"500.0\""), "{without}");
        assert!(!without.contains("streams"), "{without}");
        let short = page(8_000);
        assert!(short.contains("class=\"drain\" x=\"250.0\" width=\"500.0\""), "{short}");
        assert!(short.contains("<b>10 s</b>, and long streams <b>8 s</b>"), "{short}");
        let long = page(30_000);
        assert!(long.contains("class=\"drain\" x=\"125.0\" width=\"750.0\""), "{long}");
        assert!(long.contains("<b>10 s</b>, and long streams <b>30 s</b>"), "{long}");
    }

    #[test]
    fn the_certificate_is_shown_if_there_is_one() {
        let page = |certificate: Value| write(&json!({"certificate": certificate}), &[]).unwrap();
        assert!(!page(Value::Null).contains("certificate"));
        let fresh = page(json!({"expires_in_ms": 90_000_000, "refused": 0}));
        for part in ["expires in <b>1 d 1 h</b>", "loaded at the start, and not again"] {
            assert!(fresh.contains(part), "{part}: {fresh}");
        }
        let old = page(json!({"expires_in_ms": 0, "last_reload_ms_ago": 5_000, "refused": 2}));
        for part in ["has expired", "replaced <b>5 s</b> ago", "not be used: 2."] {
            assert!(old.contains(part), "{part}: {old}");
        }
    }
}
