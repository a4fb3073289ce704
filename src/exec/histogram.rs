//! How long calls of a command took: a count of calls for each of about three thousand spans of time.
//!
//! Up to 255 ns each nanosecond has its own counter; above, each doubling has 128 of them, so that a time is known
//! within 1 %. An HDR histogram of two significant digits divides time like this, so LATENCY HISTOGRAM and
//! `latency_percentiles_usec_*` of INFO tell what Redis tells.

use std::sync::atomic::{AtomicU64, Ordering};

/// Longer calls count as one second.
const LONGEST: u64 = 1_000_000_000;
const EXACT: usize = 256;
const A_DOUBLING: usize = 128;
/// 30 bits hold the longest time.
const SPANS: usize = EXACT + 22 * A_DOUBLING;

/// Counters of one command on one thread, which alone writes them.
#[derive(Debug)]
pub struct Histogram(Box<[AtomicU64; SPANS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([const { AtomicU64::new(0) }; SPANS]))
    }
}

#[inline]
fn span_of(nanos: u64) -> usize {
    let nanos = nanos.min(LONGEST);
    if nanos < EXACT as u64 {
        return nanos as usize;
    }
    let doubling = 56 - nanos.leading_zeros() as usize;
    EXACT + (doubling - 1) * A_DOUBLING + (nanos >> doubling) as usize - A_DOUBLING
}

/// The first and the last nanosecond of a span.
fn bounds(span: usize) -> (u64, u64) {
    if span < EXACT {
        return (span as u64, span as u64);
    }
    let (doubling, step) = ((span - EXACT) / A_DOUBLING + 1, (span - EXACT) % A_DOUBLING + A_DOUBLING);
    let first = (step as u64) << doubling;
    (first, first + (1 << doubling) - 1)
}

impl Histogram {
    /// Counts calls that took so long each. Only the thread that owns the histogram calls it.
    #[inline]
    pub fn count(&self, calls: u64, nanos: u64) {
        let counter = &self.0[span_of(nanos)];
        counter.store(counter.load(Ordering::Relaxed) + calls, Ordering::Relaxed);
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}

/// What several threads counted together.
#[derive(Clone, Debug)]
pub struct Sum(Vec<u64>);

impl Default for Sum {
    fn default() -> Self {
        Self(vec![0; SPANS])
    }
}

impl Sum {
    /// Adds what one thread has counted.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, counter) in self.0.iter_mut().zip(histogram.0.iter()) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }

    /// How many calls were counted.
    pub fn calls(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time in nanoseconds that this percentage of the calls did not exceed.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.calls() as f64 + 0.5) as u64).max(1);
        let mut passed = 0;
        let reached = |calls: &u64| {
            passed += calls;
            passed >= wanted
        };
        let span = self.0.iter().position(reached).unwrap_or(0);
        let (first, last) = bounds(span);
        if percent == 0.0 { first } else { last }
    }

    /// For the spans that end at 1, 2, 4, ... microseconds, as far as calls fell into them: the end in
    /// microseconds, and the calls that took no longer.
    pub fn doublings(&self) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        let (mut passed, mut counted, mut from) = (0, 0, 0);
        for doubling in 0.. {
            let end = span_of(1024 << doubling);
            passed += self.0[from..=end].iter().sum::<u64>();
            if passed > counted {
                // The last doubling ends beyond the longest time that is told apart.
                let last = (1024 << doubling) + (8 << doubling) - 1;
                out.push((last / 1000, passed));
                counted = passed;
            }
            from = end + 1;
            if from >= SPANS || 1024 << doubling >= LONGEST {
                return out;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_within_its_span_and_spans_follow_each_other() {
        let mut next = 0;
        for span in 0..=span_of(LONGEST) {
            let (first, last) = bounds(span);
            assert_eq!((first, span_of(first)), (next, span));
            assert_eq!(span_of(last.min(LONGEST)), span);
            assert!(last - first <= first / 100, "within 1 %: {first} to {last}");
            next = last + 1;
        }
    }

    /// The ends are those that Redis's documentation of LATENCY HISTOGRAM shows.
    #[test]
    fn doublings_end_where_redis_ends_them() {
        let histogram = Histogram::default();
        for nanos in [900, 20_000, 33_000, 300_000, u64::MAX] {
            histogram.count(1, nanos);
        }
        let mut sum = Sum::default();
        sum.add(&histogram);
        assert_eq!(sum.doublings(), [(1, 1), (33, 3), (528, 4), (1_082_130, 5)]);
        assert_eq!(sum.calls(), 5);
        assert_eq!((sum.percentile(0.0), sum.percentile(50.0)), (900, 33_023));
    }
}
