//! A worker's engine, which runs one batch at a time, and the requests that wait for the run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::inline_policy::InlinePolicy;
use super::{InferenceResult, QueuedRequest, ReplySender};
use crate::error::PredictError;
use crate::session::{EngineError, OnnxEngine, RunCanceller};
use crate::stats::ModelStats;
use crate::tensor::Tensor;

/// An engine with the requests that wait for its current run, and the canceller of that run. A run
/// is cancelled when all its clients have left: otherwise a few clients with timeouts shorter than
/// the model's run time could occupy all workers.
#[derive(Debug)]
pub(super) struct WorkerSlot {
    engine: Mutex<OnnxEngine>,
    waiting: Mutex<Vec<ReplySender>>,
    canceller: RunCanceller,
}

impl WorkerSlot {
    pub(super) fn new(engine: OnnxEngine) -> Self {
        let brake = engine.canceller();
        Self { engine: Mutex::new(engine), waiting: Mutex::default(), canceller: brake }
    }

    /// The engine, if it is idle.
    pub(super) fn try_lock_engine(&self) -> Option<MutexGuard<'_, OnnxEngine>> {
        self.engine.try_lock()
    }

    /// Waits for the engine.
    pub(super) fn lock_engine(&self) -> MutexGuard<'_, OnnxEngine> {
        self.engine.lock()
    }

    /// Registers the requests of a run until [`Self::end_run`]. Returns `false`, and registers
    /// none, when all their clients have left.
    fn begin_run(&self, replies: impl Iterator<Item = ReplySender>) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.extend(replies);
        // Clients that left after the batch was formed could not cancel the run: it had not
        // started.
        let any = waiting.iter().any(|reply| !reply.is_closed());
        if !any {
            waiting.clear();
        }
        any
    }

    /// The waiting requests in the order of the batch; empty when all clients have left and the run
    /// was cancelled.
    fn end_run(&self) -> Vec<ReplySender> {
        let mut waiting = self.waiting.lock();
        let replies = std::mem::take(&mut *waiting);
        if replies.iter().all(oneshot::Sender::is_closed) {
            self.canceller.reset();
            return Vec::new();
        }
        replies
    }

    /// Cancels the run when all clients have left.
    pub(super) fn cancel_if_abandoned(&self) {
        let waiting = self.waiting.lock();
        if !waiting.is_empty() && waiting.iter().all(oneshot::Sender::is_closed) {
            self.canceller.cancel();
        }
    }
}

/// A request that runs; its reply channel is held by the worker slot.
struct RunningRequest {
    inputs: Vec<Tensor>,
    rows: usize,
    bytes: usize,
    enqueued: Instant,
}

/// The counters of runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunCounters<'a> {
    pub(super) stats: &'a ModelStats,
    pub(super) inline_policy: &'a InlinePolicy,
}

impl RunCounters<'_> {
    fn record_run(&self, rows: usize, bytes: usize, took: std::time::Duration) {
        self.stats.record_execution(rows, took);
        self.inline_policy.record(bytes, took);
    }
}

/// Runs a batch and answers its requests.
pub(super) fn run_batch(
    engine: &mut OnnxEngine,
    batch: Vec<QueuedRequest>,
    bench: &WorkerSlot,
    counters: RunCounters<'_>,
) {
    let (seats, mut replies): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|QueuedRequest { inputs, rows, bytes, enqueued, reply, .. }| {
            (RunningRequest { inputs, rows, bytes, enqueued }, reply)
        })
        .unzip();
    if seats.len() > 1 {
        let begun = Instant::now();
        let total: usize = seats.iter().map(|seat| seat.rows).sum();
        let Some(inputs) = stack_inputs(&seats) else {
            return run_each(engine, seats, replies, bench, counters);
        };
        if !bench.begin_run(replies.drain(..)) {
            return;
        }
        let outputs = run_catching_panics(engine, inputs);
        replies = bench.end_run();
        if replies.is_empty() {
            return;
        }
        if let Ok(outputs) = outputs
            && outputs.iter().all(|t| !t.shape.is_empty() && t.rows() == total)
        {
            let bytes = seats.iter().map(|seat| seat.bytes).sum();
            counters.record_run(total, bytes, begun.elapsed());
            return split_outputs(&seats, replies, &outputs, begun);
        }
        // One request of the batch is bad, or the model does not treat rows independently. Each
        // request runs alone and gets its own answer.
    }
    run_each(engine, seats, replies, bench, counters);
}

fn stack_inputs(batch: &[RunningRequest]) -> Option<Vec<Tensor>> {
    let inputs = batch.first()?.inputs.len();
    (0..inputs).map(|i| Tensor::stack(batch.iter().filter_map(|seat| seat.inputs.get(i)))).collect()
}

fn split_outputs(
    seats: &[RunningRequest],
    replies: Vec<ReplySender>,
    outputs: &[Tensor],
    begun: Instant,
) {
    let inference = begun.elapsed();
    let mut from = 0;
    for (seat, reply) in seats.iter().zip(replies) {
        let own = outputs.iter().map(|t| t.slice_rows(from, seat.rows)).collect();
        from += seat.rows;
        let _ = reply.send(Ok(InferenceResult {
            outputs: own,
            queued: begun - seat.enqueued,
            inference,
        }));
    }
}

fn run_each(
    engine: &mut OnnxEngine,
    seats: Vec<RunningRequest>,
    replies: Vec<ReplySender>,
    bench: &WorkerSlot,
    counters: RunCounters<'_>,
) {
    for (seat, reply) in seats.into_iter().zip(replies) {
        let begun = Instant::now();
        if !bench.begin_run(std::iter::once(reply)) {
            continue;
        }
        let empty = seat.inputs.iter().any(|tensor| tensor.data.is_empty());
        let outputs = run_catching_panics(engine, seat.inputs);
        let inference = begun.elapsed();
        // A cancelled run has no receiver, and its error is not the model's.
        let Some(reply) = bench.end_run().pop() else { continue };
        let answer = outputs
            .map(|outputs| {
                counters.record_run(seat.rows, seat.bytes, inference);
                InferenceResult { outputs, queued: begun - seat.enqueued, inference }
            })
            .map_err(|e| {
                if empty {
                    // Many models do not support this, and it is the client's choice.
                    return PredictError::Unsupported(format!(
                        "the model does not take an input without elements: {}",
                        e.message
                    ));
                }
                // Names, types and shapes were checked against the model before. An argument that
                // ONNX Runtime still calls invalid comes from inside the graph. Blaming the client
                // for it would make a failing model look healthy in the counts of 5xx responses.
                tracing::error!(error = e.message, "the model failed");
                PredictError::ModelFailed(format!("the model failed: {}", e.message))
            });
        let _ = reply.send(answer);
    }
}

/// Runs the engine; a panic in the binding costs one request, not the worker.
fn run_catching_panics(
    engine: &mut OnnxEngine,
    inputs: Vec<Tensor>,
) -> Result<Vec<Tensor>, EngineError> {
    catch_unwind(AssertUnwindSafe(|| engine.run(inputs)))
        .unwrap_or_else(|_| Err(EngineError { message: "the engine panicked".into() }))
}
