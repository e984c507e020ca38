//! Reads the metrics of a host. Each scrape becomes one record of the prober: `metrics page`.

use crate::trace::Trace;

/// Records the counters that are not zero on the page that was requested at `asked_us` of the
/// world's time. A host without metrics has no such page.
pub(crate) fn record(trace: &Trace, asked_us: u64, page: &str) {
    let counters: Vec<&str> = page.lines().filter(|line| is_counter(line)).collect();
    if counters.is_empty() {
        return;
    }
    let shown: Vec<&str> = counters.into_iter().filter(|line| !line.ends_with(" 0")).collect();
    let fields = [("asked_us", asked_us.into()), ("counters", shown.join("\n").into())];
    trace.record("prober", "metrics page", &fields);
}

/// Whether a line is a counter of the host, or the number of observations of a histogram.
fn is_counter(line: &str) -> bool {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    name.starts_with("lameduck_") && (name.ends_with("_total") || name.ends_with("_count"))
}
