//! Converts OpenMetrics text to the older format 0.0.4.
//!
//! The samples are the same in both; only their metadata differs. The old format names a family
//! like its samples, including `_total` and `_info`. It has no type `info` or `unknown`, no units,
//! and no end mark.

/// Converts a page to the older format.
pub(super) fn translate(page: &str) -> String {
    let mut translated = String::with_capacity(page.len());
    // The help line is written late: its name depends on the type, which comes after it.
    let mut help = None;
    for line in page.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').map(|(_, text)| text);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some(help) = help.take() {
                translated.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            translated.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            translated.extend([without_exemplar(line), "\n"]);
        }
    }
    translated
}

/// Returns a sample without its exemplar, which follows ` # `. This format has none, and a reader
/// refuses the whole page for one.
fn without_exemplar(sample: &str) -> &str {
    if !sample.contains('#') {
        return sample;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, char) in sample.char_indices() {
        match char {
            '#' if !is_quoted => return sample[..at].trim_end(),
            '"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples_and_units_and_the_end_are_left_out() {
        let page = "# HELP a_seconds How long.\n# TYPE a_seconds counter\n\
                    # UNIT a_seconds seconds\na_seconds_total{b=\"# c\"} 1\n\
                    # HELP d What.\n# TYPE d info\nd_info{e=\"f\"} 1\n\
                    # HELP g Now.\n# TYPE g gauge\ng 2\n# EOF\n";
        let expected = "# HELP a_seconds_total How long.\n# TYPE a_seconds_total counter\n\
                        a_seconds_total{b=\"# c\"} 1\n\
                        # HELP d_info What.\n# TYPE d_info gauge\nd_info{e=\"f\"} 1\n\
                        # HELP g Now.\n# TYPE g gauge\ng 2\n";
        assert_eq!(translate(page), expected);
    }

    // The exemplar of an app's counter was copied, and no scraper of this format could read any
    // metric of the process.
    #[test]
    fn exemplars_are_left_out() {
        let page = "# TYPE a counter\na_total{b=\"# {\\\"# \"} 1 # {trace=\"c # d\"} 1.0\n\
                    # TYPE e histogram\ne_bucket{le=\"1.0\"} 2 # {f=\"g\"} 0.5 1.2\ne_sum 3\n# EOF\n";
        let expected = "# TYPE a_total counter\na_total{b=\"# {\\\"# \"} 1\n\
                        # TYPE e histogram\ne_bucket{le=\"1.0\"} 2\ne_sum 3\n";
        assert_eq!(translate(page), expected);
    }
}
