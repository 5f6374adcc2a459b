//! The statistics extension of the protocol: counts and nanoseconds of a model's requests since it
//! was loaded.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use slipway_runtime_common::clock::now_millis;

/// Largest number of distinct batch sizes that are counted; otherwise clients could grow the answer
/// without limit.
const MAX_SIZES: usize = 256;

/// How often something happened, and its total duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DurationTotal {
    pub count: u64,
    /// Total nanoseconds.
    pub ns: u64,
}

impl DurationTotal {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// How the time of requests was spent, each request counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InferenceStats {
    /// Successful requests, from the request's head to its answer.
    pub success: DurationTotal,
    /// All other requests that reached the model, including those whose client left.
    pub fail: DurationTotal,
    /// Waiting for a worker.
    pub queue: DurationTotal,
    /// Decoding the request into tensors.
    pub compute_input: DurationTotal,
    /// In the engine (of the whole batch).
    pub compute_infer: DurationTotal,
    /// Encoding the answer.
    pub compute_output: DurationTotal,
    /// Answers from the result cache: the look-up, with the wait for an equal request under way.
    pub cache_hit: DurationTotal,
    /// Answers of the model after a look-up that found nothing: the look-up alone.
    pub cache_miss: DurationTotal,
}

/// A copy of the statistics at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Milliseconds since 1970; 0 before the first inference.
    pub last_inference: u64,
    /// Number of rows inferred.
    pub inference_count: u64,
    /// Number of batches run.
    pub execution_count: u64,
    /// Durations by request.
    pub requests: InferenceStats,
    /// Executions by the number of rows of the batch.
    pub batches: BTreeMap<usize, DurationTotal>,
}

#[derive(Debug, Default)]
pub struct ModelStats(Mutex<StatsSnapshot>);

impl ModelStats {
    fn update(&self, change: impl FnOnce(&mut StatsSnapshot)) {
        change(&mut self.0.lock());
    }

    pub fn snapshot(&self) -> StatsSnapshot {
        self.0.lock().clone()
    }

    /// Counts a successful run of a batch of `rows` rows.
    pub fn record_execution(&self, rows: usize, took: Duration) {
        self.update(|s| {
            s.last_inference = now_millis();
            s.inference_count += rows as u64;
            s.execution_count += 1;
            if s.batches.len() < MAX_SIZES || s.batches.contains_key(&rows) {
                s.batches.entry(rows).or_default().add(took);
            }
        });
    }

    /// Counts the queue and engine time of a request.
    pub fn record_inference(&self, queued: Duration, inference: Duration) {
        self.update(|s| {
            s.requests.queue.add(queued);
            s.requests.compute_infer.add(inference);
        });
    }

    /// Counts the time to decode a request.
    pub fn record_input(&self, took: Duration) {
        self.update(|s| s.requests.compute_input.add(took));
    }

    /// Counts the time to encode an answer.
    pub fn record_output(&self, took: Duration) {
        self.update(|s| s.requests.compute_output.add(took));
    }

    /// A look-up in the result cache found an answer, or did not.
    pub fn record_cache_lookup(&self, found: bool, took: Duration) {
        self.update(|s| {
            if found { s.requests.cache_hit.add(took) } else { s.requests.cache_miss.add(took) }
        });
    }

    /// Counts an ended request.
    pub fn record_request(&self, well: bool, took: Duration) {
        self.update(
            |s| if well { s.requests.success.add(took) } else { s.requests.fail.add(took) },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_batches_are_bounded_and_all_executions_count() {
        let stats = ModelStats::default();
        for rows in 0..2 * MAX_SIZES {
            stats.record_execution(rows, Duration::from_nanos(10));
        }
        stats.record_execution(1, Duration::from_nanos(5));
        let now = stats.snapshot();
        assert_eq!((now.batches.len(), now.execution_count), (MAX_SIZES, 2 * MAX_SIZES as u64 + 1));
        assert_eq!(now.batches[&1], DurationTotal { count: 2, ns: 15 });
    }
}
