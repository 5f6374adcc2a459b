//! Prometheus: counts of every second, read over a window, with all possible faults of a reading.

use std::collections::BTreeMap;

use slipway_judge::evidence::{GateCounts, GateReading};

use crate::rng::SeededRng;

/// Counts since the start, at the end of each second: requests, failures, wrong predictions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedMetrics {
    sums: BTreeMap<String, Vec<[u64; 3]>>,
    now: usize,
    /// Prometheus is unavailable.
    pub(crate) is_down: bool,
    /// Prometheus does not scrape.
    pub(crate) gap: bool,
}

impl SimulatedMetrics {
    /// Begins the next second.
    pub(crate) fn tick(&mut self, now: i64) {
        self.now = usize::try_from(now).unwrap_or_default();
        for sums in self.sums.values_mut() {
            let last = sums.last().copied().unwrap_or_default();
            sums.resize(self.now + 1, last);
        }
    }

    pub(crate) fn count(&mut self, revision: &str, requests: u64, failed: u64, wrong: u64) {
        let now = self.now;
        if !self.sums.contains_key(revision) {
            self.sums.insert(revision.to_owned(), Vec::new());
        }
        let Some(sums) = self.sums.get_mut(revision) else { return };
        let last = sums.last().copied().unwrap_or_default();
        sums.resize(now + 1, last);
        if let Some([all, bad, mistaken]) = sums.last_mut() {
            *all += requests;
            *bad += failed;
            *mistaken += wrong;
        }
    }

    /// A gate's reading over the window that began `age` seconds ago.
    pub(crate) fn read(
        &self,
        gate: &str,
        arms: [&str; 2],
        age: i64,
        rng: &mut SeededRng,
    ) -> GateReading {
        if self.is_down {
            return GateReading::ProviderDown("connection refused".to_owned());
        }
        if self.gap {
            return GateReading::NoData("no series".to_owned());
        }
        if rng.chance(0.02) {
            let nan = GateCounts { bad: f64::NAN, good: f64::NAN };
            return GateReading::Counts(arms.iter().map(|arm| ((*arm).to_owned(), nan)).collect());
        }
        // The last scrape is a few seconds old.
        let until = self.now.saturating_sub(rng.between(0, 3) as usize);
        let since = self.now.saturating_sub(usize::try_from(age).unwrap_or_default());
        let counts = arms.iter().filter_map(|arm| {
            let sums = self.sums.get(*arm)?;
            let at = |second: usize| {
                sums.get(second.min(sums.len().saturating_sub(1))).copied().unwrap_or_default()
            };
            let (old, new) = (at(since.min(until)), at(until));
            let [requests, failed, wrong] = [0, 1, 2].map(|index| (new[index] - old[index]) as f64);
            let counts = match gate {
                "accuracy" => GateCounts { bad: wrong, good: requests - failed - wrong },
                _ => GateCounts { bad: failed, good: requests - failed },
            };
            Some(((*arm).to_owned(), counts))
        });
        GateReading::Counts(counts.collect())
    }
}
