//! The bounded queue, and the worker threads that run batches from it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::batch::{self, BatchItem, RequestPriority};
use crate::error::PredictError;
use crate::session::OnnxEngine;
use crate::stats::ModelStats;
use crate::tensor::Tensor;

mod inline_policy;
mod worker_slot;

use self::inline_policy::InlinePolicy;
use self::worker_slot::{RunCounters, WorkerSlot, run_batch};

/// The result of one request.
#[derive(Debug)]
pub struct InferenceResult {
    /// The outputs in the signature's order.
    pub outputs: Vec<Tensor>,
    /// Time spent in the queue.
    pub queued: Duration,
    /// Time in the engine (of the whole batch).
    pub inference: Duration,
}

#[derive(Debug)]
struct QueuedRequest {
    inputs: Vec<Tensor>,
    rows: usize,
    bytes: usize,
    enqueued: Instant,
    deadline: Instant,
    priority: RequestPriority,
    batching: bool,
    reply: ReplySender,
}

impl QueuedRequest {
    /// Answers with `DeadlineExceeded`. The send fails when the client left, which is no error.
    fn expire(self) {
        let waited = self.enqueued.elapsed().as_millis();
        let _ = self.reply.send(Err(PredictError::DeadlineExceeded(waited)));
    }
}

type ReplySender = oneshot::Sender<Result<InferenceResult, PredictError>>;

impl BatchItem for QueuedRequest {
    fn can_merge_with(&self, other: &Self) -> bool {
        self.batching
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.shape.get(1..) == b.shape.get(1..))
            // Every input must have the request's number of rows, or stacking would mix rows of
            // different requests. A request without elements runs alone, so that it gets the
            // model's own answer or error.
            && [self, other].iter().all(|job| job.inputs.iter().all(|t| t.rows() == job.rows && !t.data.is_empty()))
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

#[derive(Debug, Default)]
struct RequestQueue {
    queue: VecDeque<QueuedRequest>,
    closed: bool,
}

#[derive(Debug)]
struct PoolState {
    state: Mutex<RequestQueue>,
    wake: Condvar,
    capacity: usize,
    max_rows: usize,
    batching: bool,
    stats: Arc<ModelStats>,
    inline_policy: InlinePolicy,
    slots: Vec<WorkerSlot>,
}

/// Largest number of batches that run in a row on an event loop thread, before its connections are
/// served again.
const MAX_INLINE_BATCHES: usize = 8;

impl PoolState {
    fn run_counters(&self) -> RunCounters<'_> {
        RunCounters { stats: &self.stats, inline_policy: &self.inline_policy }
    }

    /// Runs queued requests on this thread as long as they are fast and an engine is idle. The
    /// workers run the rest.
    fn run_inline(&self) {
        for _ in 0..MAX_INLINE_BATCHES {
            let Some((bench, mut engine)) =
                self.slots.iter().find_map(|it| Some((it, it.try_lock_engine()?)))
            else {
                break;
            };
            let mut state = self.state.lock();
            let room = self.inline_policy.allowed_bytes();
            let Some(lead) = state.queue.front() else { return };
            if !self.inline_policy.allows(lead.bytes) {
                break;
            }
            // As many rows as fit, estimated by the size of the first request's rows.
            let rows = (room / lead.bytes.div_ceil(lead.rows.max(1)).max(1))
                .max(lead.rows)
                .min(self.max_rows);
            let formed = batch::form_batch(&mut state.queue, rows, Instant::now());
            drop(state);
            formed.dropped.into_iter().for_each(QueuedRequest::expire);
            run_batch(&mut engine, formed.batch, bench, self.run_counters());
        }
        if !self.state.lock().queue.is_empty() {
            self.wake.notify_one();
        }
    }
}

/// Limits and properties of the queue.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// Largest number of waiting requests.
    pub capacity: usize,
    /// Largest number of rows of a merged batch.
    pub max_rows: usize,
    /// Whether requests are merged.
    pub batching: bool,
    /// Whether the model's graph has no loops, so that the size of the inputs determines the cost
    /// of a run.
    pub bounded: bool,
}

/// The workers of one model. When the pool is dropped, the workers finish the queued requests and
/// end.
#[derive(Debug)]
pub struct WorkerPool {
    shared: Arc<PoolState>,
}

impl WorkerPool {
    /// Starts one thread for each engine.
    pub fn start(
        engines: Vec<OnnxEngine>,
        options: PoolOptions,
        stats: Arc<ModelStats>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(PoolState {
            state: Mutex::default(),
            wake: Condvar::new(),
            capacity: options.capacity,
            max_rows: options.max_rows,
            batching: options.batching,
            stats,
            inline_policy: InlinePolicy::new(options.bounded),
            slots: engines.into_iter().map(WorkerSlot::new).collect(),
        });
        let pool = Self { shared };
        for i in 0..pool.shared.slots.len() {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("infer-{i}"))
                .spawn(move || run_worker(&shared, i))?;
        }
        Ok(pool)
    }

    pub fn is_batching(&self) -> bool {
        self.shared.batching
    }

    /// Number of waiting requests.
    pub fn queued(&self) -> usize {
        self.shared.state.lock().queue.len()
    }

    /// Runs a request. Dropping the future cancels it.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full, `DeadlineExceeded` when the deadline passed before it
    /// ran, `ModelFailed` when the model fails.
    pub async fn run(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        deadline: Instant,
        priority: RequestPriority,
    ) -> Result<InferenceResult, PredictError> {
        let bytes = inputs.iter().map(Tensor::bytes).sum();
        let here = self.shared.inline_policy.allows(bytes);
        let (ticket, waiting) = self.submit(inputs, rows, bytes, deadline, priority)?;
        if here {
            // Requests that were read in the same turn of the event loop join the batch; the first
            // task that continues runs it for all. A full batch runs immediately: a burst on many
            // connections must not fill the queue of a model that is idle.
            if waiting < self.shared.max_rows {
                tokio::task::yield_now().await;
            }
            self.shared.run_inline();
        } else {
            self.shared.wake.notify_one();
        }
        ticket.await
    }

    /// Queues a request; returns the future of its answer and the number of waiting requests.
    fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        bytes: usize,
        deadline: Instant,
        priority: RequestPriority,
    ) -> Result<(PendingReply, usize), PredictError> {
        let (reply, answer) = oneshot::channel();
        let enqueued = Instant::now();
        let job = QueuedRequest {
            inputs,
            rows,
            bytes,
            enqueued,
            deadline,
            priority,
            batching: self.shared.batching,
            reply,
        };
        let mut state = self.shared.state.lock();
        if state.queue.len() >= self.shared.capacity {
            // Requests whose client left are removed first.
            state.queue.retain(|job| !job.is_abandoned());
        }
        if state.queue.len() >= self.shared.capacity {
            return Err(PredictError::Overloaded(state.queue.len()));
        }
        let at = batch::insertion_index(&state.queue, priority, |waiting| waiting.priority);
        state.queue.insert(at, job);
        let waiting = state.queue.len();
        drop(state);
        Ok((PendingReply { answer: Some(answer), shared: Arc::clone(&self.shared) }, waiting))
    }
}

/// The future of a request's answer. When it is dropped early, the request is removed from the
/// queue, or its run is cancelled if no other request waits for that run.
#[derive(Debug)]
struct PendingReply {
    answer: Option<oneshot::Receiver<Result<InferenceResult, PredictError>>>,
    shared: Arc<PoolState>,
}

impl Future for PendingReply {
    type Output = Result<InferenceResult, PredictError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = || PredictError::ModelFailed("a worker ended".into());
        let Some(answer) = &mut self.answer else { return Poll::Ready(Err(ended())) };
        let answer = ready!(Pin::new(answer).poll(cx));
        self.answer = None;
        Poll::Ready(answer.unwrap_or_else(|_| Err(ended())))
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        drop(answer);
        self.shared.slots.iter().for_each(WorkerSlot::cancel_if_abandoned);
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

fn run_worker(shared: &PoolState, index: usize) {
    // There is one slot per worker.
    let Some(bench) = shared.slots.get(index) else { return };
    loop {
        let mut state = shared.state.lock();
        while state.queue.is_empty() {
            if state.closed {
                return;
            }
            shared.wake.wait(&mut state);
        }
        let formed = batch::form_batch(&mut state.queue, shared.max_rows, Instant::now());
        drop(state);
        formed.dropped.into_iter().for_each(QueuedRequest::expire);
        run_batch(&mut bench.lock_engine(), formed.batch, bench, shared.run_counters());
    }
}
