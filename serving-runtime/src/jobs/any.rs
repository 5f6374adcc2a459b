//! The queue that a URL names.

use std::time::Duration;

use super::job::Job;
use super::nats::NatsQueue;
use super::queue::{
    Again, Called, Claimed, Due, End, Enqueued, Lag, Lease, Queue, QueueError, QueueOptions, Start, Status, View,
};
use super::redis::RedisQueue;

/// One of the queues that there are.
#[derive(Debug)]
pub enum AnyQueue {
    /// On Redis Streams.
    Redis(Box<RedisQueue>),
    /// On NATS JetStream.
    Nats(NatsQueue),
}

impl AnyQueue {
    /// The queue at a URL: `redis://` and `rediss://` for Redis, `nats://` and `tls://` for NATS. Nothing is connected yet. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL is neither.
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

impl Queue for AnyQueue {
    fn options(&self) -> &QueueOptions {
        both!(self, queue => queue.options())
    }

    fn largest(&self) -> Option<usize> {
        both!(self, queue => queue.largest())
    }

    async fn enqueue(&self, job: &Job, max_jobs: u64) -> Result<Enqueued, QueueError> {
        both!(self, queue => queue.enqueue(job, max_jobs).await)
    }

    async fn claim(&self, consumer: &str, most: usize, lowest_first: bool) -> Result<Vec<Claimed>, QueueError> {
        both!(self, queue => queue.claim(consumer, most, lowest_first).await)
    }

    async fn reclaim(&self, consumer: &str) -> Result<Option<Claimed>, QueueError> {
        both!(self, queue => queue.reclaim(consumer).await)
    }

    async fn start(&self, lease: &Lease, job: &Job, deliveries: u32, bytes: usize) -> Result<Start, QueueError> {
        both!(self, queue => queue.start(lease, job, deliveries, bytes).await)
    }

    async fn extend(&self, consumer: &str, leases: &[Lease]) -> Result<(), QueueError> {
        both!(self, queue => queue.extend(consumer, leases).await)
    }

    async fn finish(&self, lease: &Lease, end: &End) -> Result<bool, QueueError> {
        both!(self, queue => queue.finish(lease, end).await)
    }

    async fn retry(&self, consumer: &str, lease: &Lease, again: &Again) -> Result<bool, QueueError> {
        both!(self, queue => queue.retry(consumer, lease, again).await)
    }

    async fn leave(&self, consumer: &str) -> Result<(), QueueError> {
        both!(self, queue => queue.leave(consumer).await)
    }

    async fn view(&self, id: &str) -> Result<Option<View>, QueueError> {
        both!(self, queue => queue.view(id).await)
    }

    async fn cancel(&self, id: &str) -> Result<Option<Status>, QueueError> {
        both!(self, queue => queue.cancel(id).await)
    }

    async fn lag(&self) -> Result<Lag, QueueError> {
        both!(self, queue => queue.lag().await)
    }

    async fn callbacks(&self, most: usize, lease: Duration) -> Result<Vec<Due>, QueueError> {
        both!(self, queue => queue.callbacks(most, lease).await)
    }

    async fn called(&self, due: &Due, what: &Called) -> Result<bool, QueueError> {
        both!(self, queue => queue.called(due, what).await)
    }
}
