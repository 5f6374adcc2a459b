//! The bounded queue and the worker threads that run batches off it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{self, Pending, Priority};
use crate::engine::{Brake, Engine, RunError};
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
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Done, ApiError>>;

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

/// What a worker is at: those who wait for its run, and what stops it. A run that nobody waits for any more is stopped: a few clients whose
/// patience is shorter than the model would otherwise keep all workers from everybody else.
#[derive(Debug)]
struct Bench {
    waiting: Mutex<Vec<Reply>>,
    brake: Brake,
}

impl Bench {
    fn new(brake: Brake) -> Self {
        Self { waiting: Mutex::default(), brake }
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
    fn left(&self) {
        let waiting = self.lock();
        if !waiting.is_empty() && waiting.iter().all(oneshot::Sender::is_closed) {
            self.brake.pull();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    capacity: usize,
    max_rows: usize,
    batching: bool,
    stats: Arc<Stats>,
    benches: Vec<Bench>,
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
            benches: engines.iter().map(|engine| Bench::new(engine.brake())).collect(),
        });
        let pool = Self { shared };
        for (i, engine) in engines.into_iter().enumerate() {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name(format!("infer-{i}")).spawn(move || work(&shared, i, engine))?;
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

    /// Queues a request. Dropping the ticket takes it back.
    pub fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        deadline: Instant,
        priority: Priority,
    ) -> Result<Ticket, ApiError> {
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
        Ok(Ticket { answer: Some(answer), shared: Arc::clone(&self.shared) })
    }
}

/// A request's answer to be. Dropped before, the request is taken off the queue, or its run is stopped when nobody else waits for it.
#[derive(Debug)]
pub struct Ticket {
    answer: Option<oneshot::Receiver<Result<Done, ApiError>>>,
    shared: Arc<Shared>,
}

impl Future for Ticket {
    type Output = Result<Done, ApiError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = || ApiError::Internal("a worker ended".into());
        let Some(answer) = &mut self.answer else { return Poll::Ready(Err(ended())) };
        let answer = ready!(Pin::new(answer).poll(cx));
        self.answer = None;
        Poll::Ready(answer.unwrap_or_else(|_| Err(ended())))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        drop(answer);
        self.shared.benches.iter().for_each(Bench::left);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

fn work(shared: &Shared, index: usize, mut engine: Engine) {
    // There is one for each worker.
    let Some(bench) = shared.benches.get(index) else { return };
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
        run_batch(&mut engine, formed.batch, bench, &shared.stats);
    }
}

/// A request that runs; its reply waits at the bench.
struct Seat {
    inputs: Vec<Tensor>,
    rows: usize,
    enqueued: Instant,
}

fn run_batch(engine: &mut Engine, batch: Vec<Job>, bench: &Bench, stats: &Stats) {
    let (mut seats, mut replies): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|Job { inputs, rows, enqueued, reply, .. }| (Seat { inputs, rows, enqueued }, reply))
        .unzip();
    if seats.len() > 1 {
        let begun = Instant::now();
        let total: usize = seats.iter().map(|seat| seat.rows).sum();
        let Some(inputs) = stack(&seats) else { return run_each(engine, seats, replies, bench, stats) };
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
            stats.executed(total, begun.elapsed());
            return split(&seats, replies, &outputs, begun);
        }
        // One request of the batch is bad, or the model does not keep rows apart: each alone gets its own answer.
    }
    run_each(engine, std::mem::take(&mut seats), replies, bench, stats);
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

fn run_each(engine: &mut Engine, seats: Vec<Seat>, replies: Vec<Reply>, bench: &Bench, stats: &Stats) {
    for (seat, reply) in seats.into_iter().zip(replies) {
        let begun = Instant::now();
        if !bench.begin(std::iter::once(reply)) {
            continue;
        }
        let outputs = guarded(engine, seat.inputs);
        let inference = begun.elapsed();
        // Nobody listens to a run that was stopped, and its error is not the model's.
        let Some(reply) = bench.end().pop() else { continue };
        let answer = outputs
            .map(|outputs| {
                stats.executed(seat.rows, inference);
                Done { outputs, queued: begun - seat.enqueued, inference }
            })
            .map_err(|e| {
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
