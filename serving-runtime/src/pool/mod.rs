//! The bounded queue and the worker threads that run batches off it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{self, Pending, Priority};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::stats::Stats;
use crate::tensor::Tensor;

mod bench;
mod pace;

use self::bench::{Bench, Counters, run_batch};
use self::pace::Pace;

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
    bytes: usize,
    enqueued: Instant,
    deadline: Instant,
    priority: Priority,
    batching: bool,
    reply: Reply,
}

impl Job {
    /// Tells that its time is over; nobody listens when the client left, and that is no error.
    fn expire(self) {
        let waited = self.enqueued.elapsed().as_millis();
        let _ = self.reply.send(Err(ApiError::Deadline(waited)));
    }
}

type Reply = oneshot::Sender<Result<Done, ApiError>>;

impl Pending for Job {
    fn merges(&self, other: &Self) -> bool {
        self.batching
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.shape.get(1..) == b.shape.get(1..))
            // Every input of a request must have the request's rows, or stacking would tear the requests apart; and a request without elements
            // gets the model's own answer to that, or its refusal.
            && [self, other].iter().all(|job| job.inputs.iter().all(|t| t.rows() == job.rows && !t.data.is_empty()))
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
    pace: Pace,
    benches: Vec<Bench>,
}

/// Batches in a row where requests are read: then the thread's connections have their turn.
const TURNS: usize = 8;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under this lock; if it ever did, the queue itself is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> Counters<'_> {
        Counters { stats: &self.stats, pace: &self.pace }
    }

    /// Runs what is queued on this thread, as far as that is fast and an engine is idle. What is left is the workers'.
    fn run_here(&self) {
        for _ in 0..TURNS {
            let Some((bench, mut engine)) = self.benches.iter().find_map(|it| Some((it, it.idle()?))) else { break };
            let mut state = self.lock();
            let room = self.pace.room();
            let Some(lead) = state.queue.front() else { return };
            if !self.pace.fits(lead.bytes) {
                break;
            }
            // As many rows as there is room for, by the size of the first request's.
            let rows = (room / lead.bytes.div_ceil(lead.rows.max(1)).max(1)).max(lead.rows).min(self.max_rows);
            let formed = batch::form(&mut state.queue, rows, Instant::now());
            drop(state);
            formed.dropped.into_iter().for_each(Job::expire);
            run_batch(&mut engine, formed.batch, bench, self.counters());
        }
        if !self.lock().queue.is_empty() {
            self.wake.notify_one();
        }
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
    /// Whether the model's graph has no loops, so that a run's cost is known by the size of its inputs.
    pub bounded: bool,
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
            pace: Pace::new(options.bounded),
            benches: engines.into_iter().map(Bench::new).collect(),
        });
        let pool = Self { shared };
        for i in 0..pool.shared.benches.len() {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name(format!("infer-{i}")).spawn(move || work(&shared, i))?;
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

    /// Runs a request. Dropping the future takes it back.
    ///
    /// # Errors
    /// `Busy` when the queue is full, `Deadline` when its time was over before it ran, `Internal` when the model fails.
    pub async fn run(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        deadline: Instant,
        priority: Priority,
    ) -> Result<Done, ApiError> {
        let bytes = inputs.iter().map(Tensor::bytes).sum();
        let here = self.shared.pace.fits(bytes);
        let (ticket, waiting) = self.submit(inputs, rows, bytes, deadline, priority)?;
        if here {
            // Others that were read in this turn of the event loop join the batch; whoever comes back first runs it for all. When it is full
            // already, it runs now: a burst on many connections must not fill the queue of a model that is never busy.
            if waiting < self.shared.max_rows {
                tokio::task::yield_now().await;
            }
            self.shared.run_here();
        } else {
            self.shared.wake.notify_one();
        }
        ticket.await
    }

    /// Queues a request: what takes its answer, and how many wait.
    fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        bytes: usize,
        deadline: Instant,
        priority: Priority,
    ) -> Result<(Ticket, usize), ApiError> {
        let (reply, answer) = oneshot::channel();
        let enqueued = Instant::now();
        let job = Job { inputs, rows, bytes, enqueued, deadline, priority, batching: self.shared.batching, reply };
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
        let waiting = state.queue.len();
        drop(state);
        Ok((Ticket { answer: Some(answer), shared: Arc::clone(&self.shared) }, waiting))
    }
}

/// A request's answer to be. Dropped before, the request is taken off the queue, or its run is stopped when nobody else waits for it.
#[derive(Debug)]
struct Ticket {
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

fn work(shared: &Shared, index: usize) {
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
        formed.dropped.into_iter().for_each(Job::expire);
        run_batch(&mut bench.engine(), formed.batch, bench, shared.counters());
    }
}
