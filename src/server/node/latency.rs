//! The latency monitor: when the node was held up by what, and for how long
//! (`latency-monitor-threshold`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Samples that are kept of each event.
const MOST_SAMPLES: usize = 160;

/// One second in which an event took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Unix time in seconds.
    pub time: i64,
    /// The longest within that second.
    pub millis: u64,
}

/// What is known of one event.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The newest comes last.
    pub samples: VecDeque<Sample>,
    /// The longest since the last reset, in milliseconds.
    pub longest: u64,
}

/// The events by name.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    /// Nanoseconds; 0: nothing is recorded.
    threshold: AtomicU64,
    events: Mutex<BTreeMap<&'static str, Series>>,
}

impl LatencyMonitor {
    /// `latency-monitor-threshold` in milliseconds; 0: nothing is recorded.
    pub fn set_threshold(&self, millis: u64) {
        self.threshold.store(millis.saturating_mul(1_000_000), Ordering::Relaxed);
    }

    /// Whether something that took so long is recorded.
    pub fn concerns(&self, nanos: u64) -> bool {
        let threshold = self.threshold.load(Ordering::Relaxed);
        threshold > 0 && nanos >= threshold
    }

    /// Records an event that ended at `time`, if it took long enough.
    pub fn note(&self, event: &'static str, nanos: u64, time: i64) {
        if !self.concerns(nanos) {
            return;
        }
        let millis = nanos / 1_000_000;
        let mut events = self.events.lock();
        let series = events.entry(event).or_default();
        series.longest = series.longest.max(millis);
        match series.samples.back_mut() {
            Some(last) if last.time == time => last.millis = last.millis.max(millis),
            _ => series.samples.push_back(Sample { time, millis }),
        }
        if series.samples.len() > MOST_SAMPLES {
            series.samples.pop_front();
        }
    }

    /// Every event that has occurred, by name.
    pub fn all(&self) -> Vec<(&'static str, Series)> {
        self.events.lock().iter().map(|(name, series)| (*name, series.clone())).collect()
    }

    /// The event of this name in lower case; `None` when it has not occurred.
    pub fn get(&self, event: &[u8]) -> Option<(&'static str, Series)> {
        let events = self.events.lock();
        let (name, series) = events.iter().find(|(name, _)| name.as_bytes() == event)?;
        Some((name, series.clone()))
    }

    /// Forgets one event, or all; returns how many there were.
    pub fn reset(&self, event: Option<&[u8]>) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|name, _| event.is_some_and(|event| event != name.as_bytes()));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn samples(monitor: &LatencyMonitor) -> Vec<(i64, u64)> {
        let (_, series) = monitor.get(b"event").expect("it has occurred");
        series.samples.iter().map(|sample| (sample.time, sample.millis)).collect()
    }

    #[test]
    fn a_second_is_one_sample_with_the_longest() {
        let monitor = LatencyMonitor::default();
        monitor.note("event", 50 * MS, 1);
        assert!(monitor.all().is_empty(), "nothing is recorded without a threshold");
        monitor.set_threshold(10);
        monitor.note("event", 10 * MS - 1, 1);
        assert!(monitor.all().is_empty(), "that was shorter");
        for (millis, time) in [(10, 1), (30, 1), (20, 1), (15, 2)] {
            monitor.note("event", millis * MS, time);
        }
        assert_eq!(samples(&monitor), [(1, 30), (2, 15)]);
        assert_eq!(monitor.all()[0].1.longest, 30);
    }

    #[test]
    fn the_newest_160_samples_are_kept() {
        let monitor = LatencyMonitor::default();
        monitor.set_threshold(1);
        for time in 0..=160 {
            monitor.note("event", MS * if time == 0 { 9 } else { 1 }, time);
        }
        let kept = samples(&monitor);
        assert_eq!((kept.len(), kept[0], kept[159]), (160, (1, 1), (160, 1)));
        assert_eq!(monitor.all()[0].1.longest, 9, "also when its sample is gone");
    }
}
