//! How long answers took: a histogram that the request path adds to with two relaxed additions.
//!
//! Each worker has its own, so that workers do not take a cache line from each other. Whoever reads adds them up.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The upper bounds of all buckets but the last, which has none.
pub(crate) const BOUNDS: [Duration; 14] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// What answers took, from the complete head to the moment the kernel had the answer whole.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

impl Latency {
    pub(crate) fn observe(&self, took: Duration) {
        // A bucket holds what is not above its bound.
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// Histograms added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LatencySum {
    /// How many answers lie in each bucket alone; the last is the one without a bound.
    pub(crate) buckets: [u64; BUCKETS],
    pub(crate) sum: Duration,
}

impl LatencySum {
    pub(crate) fn add(&mut self, latency: &Latency) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&latency.buckets) {
            *sum += bucket.load(Relaxed);
        }
        self.sum += Duration::from_nanos(latency.sum_nanos.load(Relaxed));
    }

    /// How many answers there were: by the buckets, so that it agrees with them in every scrape.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lies_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let latency = Latency::default();
        latency.observe(Duration::ZERO);
        latency.observe(Duration::from_micros(500));
        latency.observe(Duration::from_nanos(500_001));
        latency.observe(Duration::from_secs(10));
        latency.observe(Duration::from_secs(11));
        let mut sum = LatencySum::default();
        sum.add(&latency);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[13], sum.buckets[14]), (2, 1, 1, 1));
        assert_eq!(sum.count(), 5);
        assert_eq!(sum.sum, Duration::from_secs(21) + Duration::from_nanos(1_000_001));
    }

    #[test]
    fn workers_are_added_up() {
        let [one, other] = [Latency::default(), Latency::default()];
        one.observe(Duration::from_millis(3));
        other.observe(Duration::from_millis(4));
        let mut sum = LatencySum::default();
        sum.add(&one);
        sum.add(&other);
        assert_eq!((sum.count(), sum.sum), (2, Duration::from_millis(7)));
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
