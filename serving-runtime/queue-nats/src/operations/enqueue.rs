//! Enqueues jobs, and cancels them while they wait.

use std::time::Instant;

use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::job::{JobPriority, QueuedJob};
use slipway_runtime_queue::queue::{EnqueueOutcome, JobCompletion, JobStatus, QueueError};

use super::IdempotencyClaim;
use crate::connection::JetStreamConnection;
use crate::counters::CounterLedger;
use crate::errors::{contention_error, unexpected_error};
use crate::limits::{MAX_ATTEMPTS, MESSAGE_OVERHEAD};
use crate::nats_queue::NatsQueueInner;
use crate::record::JobRecord;
use crate::store::{self, CommitOutcome, SubjectWrite};

impl NatsQueueInner {
    pub(crate) async fn enqueue_job(
        &self,
        link: &JetStreamConnection,
        job: &QueuedJob,
        max_jobs: u64,
    ) -> Result<EnqueueOutcome, QueueError> {
        let payload = serde_json::to_vec(job).map_err(unexpected_error)?;
        let (most, size) =
            (link.client.max_payload().saturating_sub(MESSAGE_OVERHEAD), payload.len());
        if size > most {
            return Err(QueueError::TooLarge(size, most));
        }
        let bytes = i64::try_from(size).unwrap_or(i64::MAX);
        let digest = job.key_digest();
        for _ in 0..MAX_ATTEMPTS {
            let mut writes = Vec::new();
            if !digest.is_empty() {
                match self.read_key(link, &digest).await? {
                    IdempotencyClaim::Taken(id, print) if print == job.fingerprint() => {
                        return Ok(EnqueueOutcome::Duplicate(id));
                    }
                    IdempotencyClaim::Taken(id, _) => return Ok(EnqueueOutcome::Conflict(id)),
                    IdempotencyClaim::Free(expected) => {
                        writes.push(self.key_write(&digest, &job.id, job, expected))
                    }
                }
            }
            if let Some(entries) = self.entries_if_full(link, size, max_jobs).await? {
                self.counters.commit(link, &self.subjects, Vec::new(), &[("refused", 1)]).await?;
                return Ok(EnqueueOutcome::Full(entries));
            }
            let mut doc = JobRecord::new_queued(job, job.priority, now_millis());
            doc.set("bytes", size);
            writes.push(self.job_write(&job.id, &doc, 0));
            writes.push(
                SubjectWrite::new(self.subjects.entry(job.priority, &job.id), payload.clone())
                    .expect_sequence(0),
            );
            let counts = [("enqueued", 1), ("bytes", bytes)];
            if self.counters.commit(link, &self.subjects, writes, &counts).await?
                != CommitOutcome::Conflict
            {
                return Ok(EnqueueOutcome::Accepted);
            }
        }
        contention_error()
    }

    /// The number of jobs, if there is no room for another of `size` bytes.
    async fn entries_if_full(
        &self,
        link: &JetStreamConnection,
        size: usize,
        max_jobs: u64,
    ) -> Result<Option<u64>, QueueError> {
        let (size, bounds) = (size as u64, (max_jobs, self.options.max_bytes));
        if self.capacity.try_reserve(size, bounds, Instant::now()) {
            return Ok(None);
        }
        let asked = Instant::now();
        let (infos, sums) = futures::future::try_join(
            link.consumer_infos(),
            CounterLedger::totals(link, &self.subjects),
        )
        .await?;
        let entries = infos
            .iter()
            .take(JobPriority::ALL.len())
            .map(|i| i.num_pending + i.num_ack_pending as u64)
            .sum();
        let bytes = sums.get("bytes").map_or(0, |bytes| u64::try_from(*bytes).unwrap_or(0));
        self.capacity.observe(entries, bytes, asked);
        // This answer is used however old it is by now: there is no newer one.
        Ok((!self.capacity.try_reserve(size, bounds, asked)).then_some(entries))
    }

    pub(crate) async fn cancel_job(
        &self,
        link: &JetStreamConnection,
        id: &str,
    ) -> Result<Option<JobStatus>, QueueError> {
        for _ in 0..MAX_ATTEMPTS {
            let (expected, doc) = self.read_job(link, id).await?;
            let Some(mut doc) = doc else { return Ok(None) };
            if doc.status() != JobStatus::Queued {
                return Ok(Some(doc.status()));
            }
            let (bytes, ttl) = (doc.bytes(), self.options.retention_millis(false));
            let priority = doc.text("priority").to_owned();
            let end = JobCompletion::without_result(JobStatus::Cancelled, String::new(), &[]);
            doc.finish(&end, now_millis(), ttl);
            let writes = vec![self.job_write(id, &doc, expected)];
            let counts = [("cancelled", 1), ("bytes", -bytes)];
            if self.counters.commit(link, &self.subjects, writes, &counts).await?
                == CommitOutcome::Conflict
            {
                continue;
            }
            // If this fails, the entry is delivered once more and dropped then.
            if let Some(priority) = JobPriority::parse(&priority)
                && let Ok(Some(entry)) =
                    store::last_message(link, &self.subjects.entry(priority, id)).await
            {
                let _ = link.stream.delete_message(entry.sequence).await;
            }
            return Ok(Some(JobStatus::Queued));
        }
        contention_error()
    }
}
