//! Response times, in a histogram. Recording one costs the request path two additions.
//!
//! Each worker has its own histogram, so that workers do not contend for a cache line. A scrape
//! adds them up.

use super::counters::{Counter, WorkerThreads};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// The upper bounds of all buckets but the last, which has none, in nanoseconds.
pub(crate) const BOUNDS: [u64; 14] = [
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// Time of responses, from the complete request head until the kernel has taken the whole response.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    buckets: [Counter; BUCKETS],
    sum_nanos: Counter,
}

impl Latency {
    pub(super) fn observe(&self, nanos: u64, threads: WorkerThreads) {
        // A bucket holds the values up to and including its bound. The search starts at the lowest,
        // since most responses are fast.
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].add(1, threads);
        self.sum_nanos.add(nanos, threads);
    }
}

/// The sum of several histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LatencySum {
    /// Responses in each bucket, not cumulative; the last bucket has no bound.
    pub(crate) buckets: [u64; BUCKETS],
    pub(crate) sum_nanos: u64,
}

impl LatencySum {
    pub(crate) fn add(&mut self, latency: &Latency) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&latency.buckets) {
            *sum += bucket.get();
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(latency.sum_nanos.get());
    }

    /// Returns the number of responses. It is the sum of the buckets, so it agrees with them in
    /// every scrape.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let latency = Latency::default();
        for nanos in [0, 500_000, 500_001, 10 * SECOND, 11 * SECOND] {
            latency.observe(nanos, WorkerThreads::One);
        }
        let mut sum = LatencySum::default();
        sum.add(&latency);
        assert_eq!(
            (sum.buckets[0], sum.buckets[1], sum.buckets[13], sum.buckets[14]),
            (2, 1, 1, 1)
        );
        assert_eq!(sum.count(), 5);
        assert_eq!(sum.sum_nanos, 21 * SECOND + 1_000_001);
    }

    #[test]
    fn workers_are_added_up() {
        let [one, other] = [Latency::default(), Latency::default()];
        one.observe(3 * MILLISECOND, WorkerThreads::One);
        other.observe(4 * MILLISECOND, WorkerThreads::Several);
        let mut sum = LatencySum::default();
        sum.add(&one);
        sum.add(&other);
        assert_eq!((sum.count(), sum.sum_nanos), (2, 7 * MILLISECOND));
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
