//! Reads the metrics of a host. Each scrape becomes one record of the prober: `metrics page`.

use crate::trace::Trace;

/// Gauges whose rows say by themselves that something exists.
const NAMED: [&str; 3] =
    ["lameduck_check_passing", "lameduck_hook_duration", "lameduck_background_task_running"];

/// A histogram, of which only the number of observations is recorded.
const HISTOGRAM: &str = "lameduck_request_duration";

/// Records the counters and the gauges that are not zero on the page that was requested at
/// `asked_us` of the world's time. A host without metrics has no such page.
pub(crate) fn record(trace: &Trace, asked_us: u64, page: &str) {
    let (mut has_counters, mut counters, mut gauges) = (false, Vec::new(), Vec::new());
    for line in page.lines().filter(|line| line.starts_with("lameduck_")) {
        let is_counter = is_counter(line);
        has_counters |= is_counter;
        let is_zero = line.ends_with(" 0");
        if is_counter && !is_zero {
            counters.push(line);
        } else if !is_counter
            && !line.starts_with(HISTOGRAM)
            && (!is_zero || NAMED.iter().any(|name| line.starts_with(name)))
        {
            gauges.push(line);
        }
    }
    if !has_counters {
        return;
    }
    let fields = [
        ("asked_us", asked_us.into()),
        ("counters", counters.join("\n").into()),
        ("gauges", gauges.join("\n").into()),
    ];
    trace.record("prober", "metrics page", &fields);
}

/// Whether a line of the host is a counter, or the number of observations of a histogram.
fn is_counter(line: &str) -> bool {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    name.ends_with("_total") || name.ends_with("_count")
}
