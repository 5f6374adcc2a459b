//! The bounded queue and the worker threads that run batches off it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{self, Pending, Priority};
use crate::engine::{Engine, RunError};
use crate::error::ApiError;
use crate::stats::Stats;
use crate::tensor::Tensor;

/// What a worker hands back.
#[derive(Debug)]
pub struct Done {
    /// The outputs, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// Time in the queue.
    pub queued: Duration,
    /// Time in the engine (of the whole batch).
    pub inference: Duration,
}

/// A queued request.
#[derive(Debug)]
struct Job {
    inputs: Vec<Tensor>,
    rows: usize,
    enqueued: Instant,
    deadline: Instant,
    priority: Priority,
    batching: bool,
    reply: oneshot::Sender<Result<Done, ApiError>>,
}

impl Pending for Job {
    fn merges(&self, other: &Self) -> bool {
        self.batching
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.shape.get(1..) == b.shape.get(1..))
            // Every input of a request must have the request's rows, or stacking would tear the requests apart.
            && [self, other].iter().all(|job| job.inputs.iter().all(|t| t.rows() == job.rows))
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    capacity: usize,
    max_rows: usize,
    batching: bool,
    stats: Arc<Stats>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under this lock; if it ever did, the queue itself is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue's sizes.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// Requests that may wait.
    pub capacity: usize,
    /// Rows of a merged batch.
    pub max_rows: usize,
    /// Whether to merge at all.
    pub batching: bool,
}

/// The workers of one model. Dropping it ends them after what is queued.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Starts one thread for each engine.
    pub fn start(engines: Vec<Engine>, options: PoolOptions, stats: Arc<Stats>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            capacity: options.capacity,
            max_rows: options.max_rows,
            batching: options.batching,
            stats,
        });
        let pool = Self { shared };
        for (i, engine) in engines.into_iter().enumerate() {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name(format!("infer-{i}")).spawn(move || work(&shared, engine))?;
        }
        Ok(pool)
    }

    /// Whether requests are merged.
    pub fn batching(&self) -> bool {
        self.shared.batching
    }

    /// Requests that wait now.
    pub fn queued(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Queues a request. Dropping the receiver takes it back.
    pub fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        deadline: Instant,
        priority: Priority,
    ) -> Result<oneshot::Receiver<Result<Done, ApiError>>, ApiError> {
        let (reply, answer) = oneshot::channel();
        let enqueued = Instant::now();
        let job = Job { inputs, rows, enqueued, deadline, priority, batching: self.shared.batching, reply };
        let mut state = self.shared.lock();
        if state.queue.len() >= self.shared.capacity {
            // Those whose client left make room first.
            state.queue.retain(|job| !job.abandoned());
        }
        if state.queue.len() >= self.shared.capacity {
            return Err(ApiError::Busy(state.queue.len()));
        }
        let at = batch::place(&state.queue, priority, |waiting| waiting.priority);
        state.queue.insert(at, job);
        drop(state);
        self.shared.wake.notify_one();
        Ok(answer)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

fn work(shared: &Shared, mut engine: Engine) {
    loop {
        let mut state = shared.lock();
        while state.queue.is_empty() {
            if state.closed {
                return;
            }
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let formed = batch::form(&mut state.queue, shared.max_rows, Instant::now());
        drop(state);
        for job in formed.dropped {
            let waited = job.enqueued.elapsed().as_millis();
            // Nobody listens when the client left; that is no error.
            let _ = job.reply.send(Err(ApiError::Deadline(waited)));
        }
        run_batch(&mut engine, formed.batch, &shared.stats);
    }
}

fn run_batch(engine: &mut Engine, mut batch: Vec<Job>, stats: &Stats) {
    if batch.len() > 1 {
        let begun = Instant::now();
        let total: usize = batch.iter().map(|j| j.rows).sum();
        if let Some(outputs) = stack(&batch).and_then(|inputs| guarded(engine, inputs).ok())
            && outputs.iter().all(|t| !t.shape.is_empty() && t.rows() == total)
        {
            stats.executed(total, begun.elapsed());
            return split(batch, &outputs, begun);
        }
        // One request of the batch is bad, or the model does not keep rows apart: each alone gets its own answer.
    }
    for job in batch.drain(..) {
        run_alone(engine, job, stats);
    }
}

fn stack(batch: &[Job]) -> Option<Vec<Tensor>> {
    let inputs = batch.first()?.inputs.len();
    (0..inputs).map(|i| Tensor::stack(batch.iter().filter_map(|j| j.inputs.get(i)))).collect()
}

fn split(batch: Vec<Job>, outputs: &[Tensor], begun: Instant) {
    let inference = begun.elapsed();
    let mut from = 0;
    for job in batch {
        let own = outputs.iter().map(|t| t.rows_slice(from, job.rows)).collect();
        from += job.rows;
        let _ = job.reply.send(Ok(Done { outputs: own, queued: begun - job.enqueued, inference }));
    }
}

fn run_alone(engine: &mut Engine, job: Job, stats: &Stats) {
    let begun = Instant::now();
    let answer = guarded(engine, job.inputs)
        .map(|outputs| {
            let inference = begun.elapsed();
            stats.executed(job.rows, inference);
            Done { outputs, queued: begun - job.enqueued, inference }
        })
        .map_err(|e| {
            // Names, types and shapes were checked against the model before. What ONNX Runtime still calls an invalid argument comes from
            // inside the graph: a model that blames its clients must not look healthy to whoever counts 5xx.
            tracing::error!(error = e.message, "the model failed");
            ApiError::Internal(format!("the model failed: {}", e.message))
        });
    let _ = job.reply.send(answer);
}

/// A panic in the binding costs one request, not the worker.
fn guarded(engine: &mut Engine, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
    catch_unwind(AssertUnwindSafe(|| engine.run(inputs)))
        .unwrap_or_else(|_| Err(RunError { message: "the engine panicked".into() }))
}
