//! Seeds from the environment.

use std::ops::Range;

/// Returns the seeds that the environment sets, or `seeds`.
///
/// # Panics
/// Panics if a variable is set and invalid: a run with other seeds proves nothing.
#[track_caller]
pub(super) fn from_environment(seeds: Range<u64>) -> Range<u64> {
    match read(|name| std::env::var_os(name).map(|it| it.to_string_lossy().into_owned())) {
        Ok(read) => read.unwrap_or(seeds),
        Err(why) => panic!("{why}"),
    }
}

/// Whether the environment asks for a single seed.
pub(super) fn one_is_asked_for() -> bool {
    std::env::var_os("LAMEDUCK_SEED").is_some()
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Range<u64>>, String> {
    if let Some(seed) = variable("LAMEDUCK_SEED") {
        let seed: Option<u64> = seed.trim().parse().ok();
        let range = seed.and_then(|seed| Some(seed..seed.checked_add(1)?));
        return range.map(Some).ok_or_else(|| "LAMEDUCK_SEED must be a number, like 7".to_owned());
    }
    let Some(seeds) = variable("LAMEDUCK_SEEDS") else { return Ok(None) };
    let range = seeds
        .split_once("..")
        .and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
    range.map(Some).ok_or_else(|| format!("LAMEDUCK_SEEDS={seeds} must be a range, like 0..1000"))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn seeds_come_from_the_environment_and_a_mistyped_one_is_refused() {
        let set = |name: &'static str, value: &'static str| {
            read(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(read(|_| None), Ok(None));
        assert_eq!(set("LAMEDUCK_SEED", "7"), Ok(Some(7..8)));
        assert_eq!(set("LAMEDUCK_SEEDS", "0..1000"), Ok(Some(0..1_000)));
        assert!(set("LAMEDUCK_SEED", "seven").unwrap_err().contains("must be a number"));
        assert!(set("LAMEDUCK_SEED", "18446744073709551615").is_err());
        assert!(set("LAMEDUCK_SEEDS", "1000").unwrap_err().contains("must be a range"));
    }
}
