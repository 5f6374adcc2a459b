//! The interface of a queue, independent of its storage.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::{JobPriority, QueuedJob};

/// The state of a job. `queued` and `running` may alternate several times; all other states are
/// terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits, for the first or another attempt.
    Queued,
    /// A worker has taken it.
    Running,
    /// There is a result.
    Succeeded,
    /// It cannot succeed: its request is wrong for the model.
    Failed,
    /// It was given up after too many deliveries, and is in the dead-letter stream.
    Dead,
    /// Its deadline passed before it was started.
    Expired,
    /// It was cancelled while it waited.
    Cancelled,
}

impl JobStatus {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Dead,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The name in the API and in Redis.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Why an operation of a queue failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The queue cannot be reached, or did not answer in time: the operation may or may not have
    /// happened.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// The queue gave an answer that this program does not understand.
    #[error("the queue answers with something unexpected: {0}")]
    Unexpected(String),
    /// The message is too large: its size, and the largest size that the queue accepts, in bytes.
    #[error("{0} bytes are too many for the queue, which takes {1}")]
    TooLarge(usize, usize),
}

/// Limits and times of a queue.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// First part of all keys.
    pub prefix: String,
    /// Name of the queue, the second part of all keys.
    pub name: String,
    /// Largest number of queued and running jobs.
    pub max_entries: u64,
    /// Largest total size of their payloads, in bytes.
    pub max_bytes: u64,
    /// How long a worker may be silent before its jobs are given to others.
    pub lease: Duration,
    /// Largest number of deliveries of a job.
    pub max_deliveries: u32,
    /// How long results are kept.
    pub result_ttl: Duration,
    /// How long callbacks are retried; results with a callback are kept at least this long.
    pub callback_age: Duration,
    /// Number of servers that store a stream that this program creates (JetStream).
    pub replicas: usize,
}

impl QueueOptions {
    /// Milliseconds for which a terminated job is kept; longer when it has a callback.
    pub fn retention_millis(&self, callback: bool) -> u64 {
        let ttl = self.result_ttl;
        duration_millis(if callback { ttl.max(self.callback_age * 2) } else { ttl })
    }
}

pub(super) fn duration_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The outcome of enqueueing a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnqueueOutcome {
    /// It is queued.
    Accepted,
    /// A job with the same idempotency key and the same content exists; its id.
    Duplicate(String),
    /// A job with the same idempotency key and another content exists; its id.
    Conflict(String),
    /// The queue is full; the number of jobs in it.
    Full(u64),
}

/// A delivery that one worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLease {
    /// The job's id.
    pub id: String,
    pub priority: JobPriority,
    /// The entry's id in the stream: when it was written, in milliseconds since 1970, `-`, and a
    /// number.
    pub entry: String,
    /// Where this delivery is acknowledged; empty for queues that do not need it.
    pub token: String,
}

impl JobLease {
    /// When the entry was written, in milliseconds since 1970.
    pub fn written_at(&self) -> u64 {
        self.entry.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0)
    }
}

/// A job as a worker receives it.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The lease. Its `id` is empty until the payload is parsed if a producer wrote the entry
    /// itself.
    pub lease: JobLease,
    /// The job's JSON, not validated.
    pub payload: Vec<u8>,
    /// Number of deliveries, including this one.
    pub deliveries: u32,
}

/// What to do with a claimed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartDecision {
    /// Run it.
    Run,
    /// Nothing: it, or another job with its idempotency key, was already handled; the entry is
    /// deleted.
    Duplicate,
    /// Finish it as expired: its deadline passed.
    Expired,
    /// Finish it as dead: it was delivered too often.
    Dead,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobCompletion {
    /// A terminal status.
    pub status: JobStatus,
    /// The result's JSON; empty when there is none.
    pub result: Vec<u8>,
    /// Why there is no result.
    pub error: String,
    /// The version of the model that answered; empty when none did.
    pub version: String,
    /// Where the result is sent.
    pub callback_url: Option<String>,
    /// The job's `traceparent`, for the callback.
    pub traceparent: Option<String>,
    /// The job's JSON, for the dead-letter stream.
    pub payload: Vec<u8>,
}

impl JobCompletion {
    /// A completion without result and callback.
    pub fn without_result(status: JobStatus, error: String, payload: &[u8]) -> Self {
        Self {
            status,
            result: Vec::new(),
            error,
            version: String::new(),
            callback_url: None,
            traceparent: None,
            payload: payload.to_vec(),
        }
    }
}

/// How a job is to be retried.
#[derive(Debug, Clone)]
pub struct RetryRequest {
    /// Delay before the next attempt; at most the length of a lease.
    pub delay: Duration,
    /// What failed; empty if nothing did.
    pub error: String,
    /// Whether the delivery counts towards the largest number of deliveries.
    pub counts: bool,
}

/// A job as clients see it. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredJob {
    /// All stored fields.
    pub fields: BTreeMap<String, Vec<u8>>,
}

impl StoredJob {
    /// A field as text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(|v| std::str::from_utf8(v).ok()).filter(|v| !v.is_empty())
    }

    /// A field as a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.text(field)?.parse().ok()
    }

    pub fn status(&self) -> Option<JobStatus> {
        JobStatus::parse(self.text("status")?)
    }
}

/// A callback that is due.
#[derive(Debug, Clone)]
pub struct DueCallback {
    /// The job's id.
    pub id: String,
    /// The job with its result.
    pub job: StoredJob,
    /// Milliseconds since the first attempt.
    pub age: u64,
    /// As [`JobLease::token`].
    pub token: String,
}

/// The outcome of one attempt at a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The receiver accepted it.
    Delivered,
    /// Retry after a time; the error.
    Retry(Duration, String),
    /// Given up; the error.
    Dead(String),
}

/// How many jobs wait, and the totals of all outcomes so far. Consistent with Redis, and with
/// JetStream while no operation runs: `enqueued = succeeded + failed + dead + expired + cancelled +
/// duplicate + waiting + taken`, once a worker has read the entries that producers wrote
/// themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueLag {
    /// Jobs that no worker has taken yet.
    pub waiting: u64,
    /// Jobs that a worker holds, or that wait for another attempt.
    pub taken: u64,
    /// Age of the oldest job in the queue, in milliseconds.
    pub oldest: u64,
    /// Callbacks that are not yet settled.
    pub callbacks: u64,
    /// Lateness of the callback that is due first, in milliseconds.
    pub callbacks_late: u64,
    /// Counters since the queue was created, by name.
    pub totals: BTreeMap<String, u64>,
}

type QueueResult<T> = Result<T, QueueError>;

/// A durable queue of jobs with at-least-once delivery and at most one result per job.
pub trait JobQueue: Send + Sync + 'static {
    fn options(&self) -> &QueueOptions;
    /// Size of the largest result that the queue accepts, in bytes, if it has such a limit.
    fn max_result_bytes(&self) -> Option<usize> {
        None
    }
    /// Enqueues a job, unless its idempotency key exists, `max_jobs` wait, or the bytes of the
    /// options are used up.
    fn enqueue(
        &self,
        job: &QueuedJob,
        max_jobs: u64,
    ) -> impl Future<Output = QueueResult<EnqueueOutcome>> + Send;
    /// Takes up to `most` jobs that no worker holds, by priority, or from the lowest when
    /// `lowest_first`. Jobs that were delivered before may be among them.
    fn claim(
        &self,
        consumer: &str,
        most: usize,
        lowest_first: bool,
    ) -> impl Future<Output = QueueResult<Vec<ClaimedJob>>> + Send;
    /// Takes a job whose lease has expired, for queues where [`claim`](JobQueue::claim) does not
    /// return these.
    fn reclaim(
        &self,
        consumer: &str,
    ) -> impl Future<Output = QueueResult<Option<ClaimedJob>>> + Send;
    /// Registers that a claimed job is started.
    fn start(
        &self,
        lease: &JobLease,
        job: &QueuedJob,
        deliveries: u32,
        bytes: usize,
    ) -> impl Future<Output = QueueResult<StartDecision>> + Send;
    /// Renews leases that are still held.
    fn extend(
        &self,
        consumer: &str,
        leases: &[JobLease],
    ) -> impl Future<Output = QueueResult<()>> + Send;
    /// Stores how a job ended, once, and acknowledges it. Returns `false` when it had ended before.
    fn finish(
        &self,
        lease: &JobLease,
        end: &JobCompletion,
    ) -> impl Future<Output = QueueResult<bool>> + Send;
    /// Returns a job to the queue. Returns `false` when it is not held any more.
    fn retry(
        &self,
        consumer: &str,
        lease: &JobLease,
        again: &RetryRequest,
    ) -> impl Future<Output = QueueResult<bool>> + Send;
    /// Removes a worker, and workers that have been inactive for too long.
    fn leave(&self, consumer: &str) -> impl Future<Output = QueueResult<()>> + Send;
    fn get_job(&self, id: &str) -> impl Future<Output = QueueResult<Option<StoredJob>>> + Send;
    /// Cancels a waiting job: `Ok(None)` when there is no such job, else `Some` of its previous
    /// status.
    fn cancel(&self, id: &str) -> impl Future<Output = QueueResult<Option<JobStatus>>> + Send;
    /// How many jobs wait.
    fn lag(&self) -> impl Future<Output = QueueResult<QueueLag>> + Send;
    /// Takes up to `most` due callbacks; each is due again after `lease` unless
    /// [`record_callback`](JobQueue::record_callback) is called.
    fn claim_callbacks(
        &self,
        most: usize,
        lease: Duration,
    ) -> impl Future<Output = QueueResult<Vec<DueCallback>>> + Send;
    /// Stores the outcome of an attempt. Returns `false` when the callback is settled, or a later
    /// attempt is in progress.
    fn record_callback(
        &self,
        due: &DueCallback,
        what: &CallbackOutcome,
    ) -> impl Future<Output = QueueResult<bool>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ends() {
        for status in JobStatus::ALL {
            assert_eq!(JobStatus::parse(status.name()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
        assert_eq!(JobStatus::ALL.iter().filter(|s| s.is_terminal()).count(), 5);
    }
}
