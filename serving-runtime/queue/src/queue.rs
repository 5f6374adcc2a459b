//! What a queue must do, whatever keeps it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::{JobPriority, QueuedJob};

/// Where a job is in its life. `queued` and `running` may follow each other several times; all
/// others are ends, and an end is never left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits, for the first time or for another attempt.
    Queued,
    /// A worker has it.
    Running,
    /// There is a result.
    Succeeded,
    /// It cannot succeed: its request is wrong for the model.
    Failed,
    /// It was given up after too many deliveries, and is in the dead-letter stream.
    Dead,
    /// Its deadline passed before it was begun.
    Expired,
    /// It was cancelled while it waited.
    Cancelled,
}

impl JobStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Dead,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Its name in the API and in Redis.
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

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether it is an end.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Why a queue did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// It cannot be reached, or did not answer in time: what was asked may or may not have been
    /// done.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// It answered with something that we do not understand.
    #[error("the queue answers with something unexpected: {0}")]
    Unexpected(String),
    /// It takes no messages of this many bytes; the most that it takes.
    #[error("{0} bytes are too many for the queue, which takes {1}")]
    TooLarge(usize, usize),
}

/// Bounds and times of a queue.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// First part of all keys.
    pub prefix: String,
    /// Name of the queue, the second part.
    pub name: String,
    /// Jobs that may be queued or running.
    pub max_entries: u64,
    /// Bytes of their payloads.
    pub max_bytes: u64,
    /// How long a worker may be silent before its jobs are given to others.
    pub lease: Duration,
    /// How often a job may be handed out.
    pub max_deliveries: u32,
    /// How long results are kept.
    pub result_ttl: Duration,
    /// How long callbacks are tried, and results with a callback kept at least.
    pub callback_age: Duration,
    /// Servers that a stream is kept on when we make it (JetStream).
    pub replicas: usize,
}

impl QueueOptions {
    /// Milliseconds for which a job that ended is kept; longer when a callback is to tell of it.
    pub fn retention_millis(&self, callback: bool) -> u64 {
        let ttl = self.result_ttl;
        duration_millis(if callback { ttl.max(self.callback_age * 2) } else { ttl })
    }
}

/// A time in milliseconds.
pub(super) fn duration_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What became of a job that was to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnqueueOutcome {
    /// It is queued.
    Accepted,
    /// There is a job of that idempotency key with the same content: its id.
    Duplicate(String),
    /// There is a job of that idempotency key with another content: its id.
    Conflict(String),
    /// So many jobs are in the queue that no more are taken.
    Full(u64),
}

/// A delivery that one worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLease {
    /// The job.
    pub id: String,
    /// Its stream.
    pub priority: JobPriority,
    /// Its entry in the stream: when it was written, in milliseconds since 1970, `-`, and a
    /// number.
    pub entry: String,
    /// Where this delivery is acknowledged; empty when the queue needs no such thing.
    pub token: String,
}

impl JobLease {
    /// When its entry was written, in milliseconds since 1970.
    pub fn written_at(&self) -> u64 {
        self.entry.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0)
    }
}

/// A job as a worker gets it.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// What is held. Its `id` is empty until the payload was read when a producer wrote the entry
    /// itself.
    pub lease: JobLease,
    /// The job's JSON, of unknown validity.
    pub payload: Vec<u8>,
    /// How often it was handed out, this time included.
    pub deliveries: u32,
}

/// Whether a claimed job is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartDecision {
    /// Yes.
    Run,
    /// It, or another of its idempotency key, has been dealt with; the entry is gone.
    Duplicate,
    /// Its deadline passed: finish it so.
    Expired,
    /// It was handed out too often: finish it so.
    Dead,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobCompletion {
    /// An end.
    pub status: JobStatus,
    /// The result's JSON; empty when there is none.
    pub result: Vec<u8>,
    /// Why there is no result.
    pub error: String,
    /// The version of the model that answered; empty when none did.
    pub version: String,
    /// Where to tell it.
    pub callback_url: Option<String>,
    /// The job's own, for the callback.
    pub traceparent: Option<String>,
    /// The job's JSON, for the dead-letter stream.
    pub payload: Vec<u8>,
}

impl JobCompletion {
    /// An end that nobody is told.
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

/// When a job is to be tried again.
#[derive(Debug, Clone)]
pub struct RetryRequest {
    /// Not before this; at most the length of a lease.
    pub delay: Duration,
    /// What went wrong; empty for nothing.
    pub error: String,
    /// Whether the delivery counts towards the most that there may be.
    pub counts: bool,
}

/// A job as people see it. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredJob {
    /// All fields as they are kept.
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

    /// Its status.
    pub fn status(&self) -> Option<JobStatus> {
        JobStatus::parse(self.text("status")?)
    }
}

/// A callback that is due.
#[derive(Debug, Clone)]
pub struct DueCallback {
    /// The job.
    pub id: String,
    /// The job with its result.
    pub job: StoredJob,
    /// Milliseconds since the first attempt.
    pub age: u64,
    /// As [`JobLease::token`].
    pub token: String,
}

/// What became of one attempt at a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The receiver has it.
    Delivered,
    /// Again, after a time.
    Retry(Duration, String),
    /// Given up.
    Dead(String),
}

/// How much waits, and what became of everything so far. Of one moment with Redis, and with
/// JetStream when nothing happens meanwhile: `enqueued = succeeded + failed + dead + expired +
/// cancelled + duplicate + waiting + taken`, as soon as entries that producers wrote themselves
/// have been seen by a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueLag {
    /// Jobs that no worker has had.
    pub waiting: u64,
    /// Jobs that a worker has, or that wait for another attempt.
    pub taken: u64,
    /// Age of the oldest job in the queue, in milliseconds.
    pub oldest: u64,
    /// Callbacks that are to be made.
    pub callbacks: u64,
    /// How late the callback is that is due first, in milliseconds.
    pub callbacks_late: u64,
    /// Counters since the queue exists, by name.
    pub totals: BTreeMap<String, u64>,
}

type QueueResult<T> = Result<T, QueueError>;

/// A durable queue of jobs with at-least-once delivery and at most one result for each.
pub trait JobQueue: Send + Sync + 'static {
    /// Its options.
    fn options(&self) -> &QueueOptions;
    /// Bytes of the largest result that it takes, when it has such a bound.
    fn max_result_bytes(&self) -> Option<usize> {
        None
    }
    /// Queues a job, unless its idempotency key is known or `max_jobs` wait, or as many bytes as
    /// the options allow.
    fn enqueue(
        &self,
        job: &QueuedJob,
        max_jobs: u64,
    ) -> impl Future<Output = QueueResult<EnqueueOutcome>> + Send;
    /// Up to `most` jobs that no worker holds, by priority, or from the lowest when `lowest_first`.
    /// Those that were handed out before may be among them.
    fn claim(
        &self,
        consumer: &str,
        most: usize,
        lowest_first: bool,
    ) -> impl Future<Output = QueueResult<Vec<ClaimedJob>>> + Send;
    /// A job whose lease has run out, where [`claim`](JobQueue::claim_from_uri) does not tell them.
    fn reclaim(
        &self,
        consumer: &str,
    ) -> impl Future<Output = QueueResult<Option<ClaimedJob>>> + Send;
    /// Registers that a claimed job is begun.
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
    /// Stores how a job ended, once, and acknowledges it. False when it had ended before.
    fn finish(
        &self,
        lease: &JobLease,
        end: &JobCompletion,
    ) -> impl Future<Output = QueueResult<bool>> + Send;
    /// Gives a job back. False when it is not held any more.
    fn retry(
        &self,
        consumer: &str,
        lease: &JobLease,
        again: &RetryRequest,
    ) -> impl Future<Output = QueueResult<bool>> + Send;
    /// Says that a worker goes; also forgets those that have gone without a word.
    fn leave(&self, consumer: &str) -> impl Future<Output = QueueResult<()>> + Send;
    /// A job by its id.
    fn get_job(&self, id: &str) -> impl Future<Output = QueueResult<Option<StoredJob>>> + Send;
    /// Cancels a job that waits: `Ok(None)` when there is no such job, `Some(status)` with what it
    /// was when asked.
    fn cancel(&self, id: &str) -> impl Future<Output = QueueResult<Option<JobStatus>>> + Send;
    /// How much waits.
    fn lag(&self) -> impl Future<Output = QueueResult<QueueLag>> + Send;
    /// Callbacks that are due, at most `most`; each is due again after `lease` unless
    /// [`called`](JobQueue::record_callback) says something else.
    fn claim_callbacks(
        &self,
        most: usize,
        lease: Duration,
    ) -> impl Future<Output = QueueResult<Vec<DueCallback>>> + Send;
    /// Stores what became of an attempt. False when the callback is settled, or a later attempt is
    /// under way.
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
