//! Where an engine runs: one batch at a time, for those who wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::pace::Pace;
use super::{Done, Job, Reply};
use crate::engine::{Brake, Engine, RunError};
use crate::error::ApiError;
use crate::stats::Stats;
use crate::tensor::Tensor;

/// What a worker is at: those who wait for its run, and what stops it. A run that nobody waits for any more is stopped: a few clients whose
/// patience is shorter than the model would otherwise keep all workers from everybody else.
#[derive(Debug)]
pub(super) struct Bench {
    engine: Mutex<Engine>,
    waiting: Mutex<Vec<Reply>>,
    brake: Brake,
}

impl Bench {
    pub(super) fn new(engine: Engine) -> Self {
        let brake = engine.brake();
        Self { engine: Mutex::new(engine), waiting: Mutex::default(), brake }
    }

    /// The engine, if nobody runs it now.
    pub(super) fn idle(&self) -> Option<MutexGuard<'_, Engine>> {
        match self.engine.try_lock() {
            Ok(engine) => Some(engine),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The engine, when whoever runs it has ended.
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reply>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anybody to run for. If so they wait here until [`Bench::end`].
    fn begin(&self, replies: impl Iterator<Item = Reply>) -> bool {
        let mut waiting = self.lock();
        waiting.extend(replies);
        // Who left between the queue and here found nothing to stop.
        let any = waiting.iter().any(|reply| !reply.is_closed());
        if !any {
            waiting.clear();
        }
        any
    }

    /// Those who wait, in the order of the batch; none when all have left and the run was stopped.
    fn end(&self) -> Vec<Reply> {
        let mut waiting = self.lock();
        let replies = std::mem::take(&mut *waiting);
        if replies.iter().all(oneshot::Sender::is_closed) {
            self.brake.release();
            return Vec::new();
        }
        replies
    }

    /// Stops the run when everybody has left.
    pub(super) fn left(&self) {
        let waiting = self.lock();
        if !waiting.is_empty() && waiting.iter().all(oneshot::Sender::is_closed) {
            self.brake.pull();
        }
    }
}

/// A request that runs; its reply waits at the bench.
struct Seat {
    inputs: Vec<Tensor>,
    rows: usize,
    bytes: usize,
    enqueued: Instant,
}

/// What runs are counted in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters<'a> {
    pub(super) stats: &'a Stats,
    pub(super) pace: &'a Pace,
}

impl Counters<'_> {
    fn ran(&self, rows: usize, bytes: usize, took: std::time::Duration) {
        self.stats.executed(rows, took);
        self.pace.record(bytes, took);
    }
}

/// Runs a batch and answers its requests.
pub(super) fn run_batch(engine: &mut Engine, batch: Vec<Job>, bench: &Bench, counters: Counters<'_>) {
    let (seats, mut replies): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|Job { inputs, rows, bytes, enqueued, reply, .. }| (Seat { inputs, rows, bytes, enqueued }, reply))
        .unzip();
    if seats.len() > 1 {
        let begun = Instant::now();
        let total: usize = seats.iter().map(|seat| seat.rows).sum();
        let Some(inputs) = stack(&seats) else { return run_each(engine, seats, replies, bench, counters) };
        if !bench.begin(replies.drain(..)) {
            return;
        }
        let outputs = guarded(engine, inputs);
        replies = bench.end();
        if replies.is_empty() {
            return;
        }
        if let Ok(outputs) = outputs
            && outputs.iter().all(|t| !t.shape.is_empty() && t.rows() == total)
        {
            let bytes = seats.iter().map(|seat| seat.bytes).sum();
            counters.ran(total, bytes, begun.elapsed());
            return split(&seats, replies, &outputs, begun);
        }
        // One request of the batch is bad, or the model does not keep rows apart: each alone gets its own answer.
    }
    run_each(engine, seats, replies, bench, counters);
}

fn stack(batch: &[Seat]) -> Option<Vec<Tensor>> {
    let inputs = batch.first()?.inputs.len();
    (0..inputs).map(|i| Tensor::stack(batch.iter().filter_map(|seat| seat.inputs.get(i)))).collect()
}

fn split(seats: &[Seat], replies: Vec<Reply>, outputs: &[Tensor], begun: Instant) {
    let inference = begun.elapsed();
    let mut from = 0;
    for (seat, reply) in seats.iter().zip(replies) {
        let own = outputs.iter().map(|t| t.rows_slice(from, seat.rows)).collect();
        from += seat.rows;
        let _ = reply.send(Ok(Done { outputs: own, queued: begun - seat.enqueued, inference }));
    }
}

fn run_each(engine: &mut Engine, seats: Vec<Seat>, replies: Vec<Reply>, bench: &Bench, counters: Counters<'_>) {
    for (seat, reply) in seats.into_iter().zip(replies) {
        let begun = Instant::now();
        if !bench.begin(std::iter::once(reply)) {
            continue;
        }
        let empty = seat.inputs.iter().any(|tensor| tensor.data.is_empty());
        let outputs = guarded(engine, seat.inputs);
        let inference = begun.elapsed();
        // Nobody listens to a run that was stopped, and its error is not the model's.
        let Some(reply) = bench.end().pop() else { continue };
        let answer = outputs
            .map(|outputs| {
                counters.ran(seat.rows, seat.bytes, inference);
                Done { outputs, queued: begun - seat.enqueued, inference }
            })
            .map_err(|e| {
                if empty {
                    // Many models do not, and it is the client who chose it.
                    return ApiError::Unprocessable(format!(
                        "the model does not take an input without elements: {}",
                        e.message
                    ));
                }
                // Names, types and shapes were checked against the model before. What ONNX Runtime still calls an invalid argument comes from
                // inside the graph: a model that blames its clients must not look healthy to whoever counts 5xx.
                tracing::error!(error = e.message, "the model failed");
                ApiError::Internal(format!("the model failed: {}", e.message))
            });
        let _ = reply.send(answer);
    }
}

/// A panic in the binding costs one request, not the worker.
fn guarded(engine: &mut Engine, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
    catch_unwind(AssertUnwindSafe(|| engine.run(inputs)))
        .unwrap_or_else(|_| Err(RunError { message: "the engine panicked".into() }))
}
