//! Selects the queue by its URL.

use std::time::Duration;

use slipway_runtime_queue::job::QueuedJob;
use slipway_runtime_queue::queue::{
    CallbackOutcome, ClaimedJob, DueCallback, EnqueueOutcome, JobCompletion, JobLease, JobQueue,
    JobStatus, QueueError, QueueLag, QueueOptions, RetryRequest, StartDecision, StoredJob,
};
use slipway_runtime_queue::redis::RedisQueue;
use slipway_runtime_queue_nats::NatsQueue;

/// The supported queues.
#[derive(Debug)]
pub enum JobBroker {
    Redis(Box<RedisQueue>),
    Nats(NatsQueue),
}

impl JobBroker {
    /// The queue at a URL: `redis://` and `rediss://` for Redis, `nats://` and `tls://` for NATS.
    /// Does not connect yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL has another scheme.
    pub fn new(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("nats" | "tls") => NatsQueue::new(url, options).map(Self::Nats),
            _ => RedisQueue::new(url, options).map(Box::new).map(Self::Redis),
        }
    }
}

macro_rules! both {
    ($self:ident, $queue:ident => $what:expr) => {
        match $self {
            Self::Redis($queue) => $what,
            Self::Nats($queue) => $what,
        }
    };
}

impl JobQueue for JobBroker {
    fn options(&self) -> &QueueOptions {
        both!(self, queue => queue.options())
    }

    fn max_result_bytes(&self) -> Option<usize> {
        both!(self, queue => queue.max_result_bytes())
    }

    async fn enqueue(&self, job: &QueuedJob, max_jobs: u64) -> Result<EnqueueOutcome, QueueError> {
        both!(self, queue => queue.enqueue(job, max_jobs).await)
    }

    async fn claim(
        &self,
        consumer: &str,
        most: usize,
        lowest_first: bool,
    ) -> Result<Vec<ClaimedJob>, QueueError> {
        both!(self, queue => queue.claim(consumer, most, lowest_first).await)
    }

    async fn reclaim(&self, consumer: &str) -> Result<Option<ClaimedJob>, QueueError> {
        both!(self, queue => queue.reclaim(consumer).await)
    }

    async fn start(
        &self,
        lease: &JobLease,
        job: &QueuedJob,
        deliveries: u32,
        bytes: usize,
    ) -> Result<StartDecision, QueueError> {
        both!(self, queue => queue.start(lease, job, deliveries, bytes).await)
    }

    async fn extend(&self, consumer: &str, leases: &[JobLease]) -> Result<(), QueueError> {
        both!(self, queue => queue.extend(consumer, leases).await)
    }

    async fn finish(&self, lease: &JobLease, end: &JobCompletion) -> Result<bool, QueueError> {
        both!(self, queue => queue.finish(lease, end).await)
    }

    async fn retry(
        &self,
        consumer: &str,
        lease: &JobLease,
        again: &RetryRequest,
    ) -> Result<bool, QueueError> {
        both!(self, queue => queue.retry(consumer, lease, again).await)
    }

    async fn leave(&self, consumer: &str) -> Result<(), QueueError> {
        both!(self, queue => queue.leave(consumer).await)
    }

    async fn get_job(&self, id: &str) -> Result<Option<StoredJob>, QueueError> {
        both!(self, queue => queue.get_job(id).await)
    }

    async fn cancel(&self, id: &str) -> Result<Option<JobStatus>, QueueError> {
        both!(self, queue => queue.cancel(id).await)
    }

    async fn lag(&self) -> Result<QueueLag, QueueError> {
        both!(self, queue => queue.lag().await)
    }

    async fn claim_callbacks(
        &self,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<DueCallback>, QueueError> {
        both!(self, queue => queue.claim_callbacks(most, lease).await)
    }

    async fn record_callback(
        &self,
        due: &DueCallback,
        what: &CallbackOutcome,
    ) -> Result<bool, QueueError> {
        both!(self, queue => queue.record_callback(due, what).await)
    }
}
