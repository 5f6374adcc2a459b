//! Deliveries of jobs: claimed, started, finished or returned.

use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::job::{JobPriority, QueuedJob, entry_id, is_valid_id};
use slipway_runtime_queue::queue::{
    ClaimedJob, JobCompletion, JobLease, JobStatus, QueueError, RetryRequest, StartDecision,
};

use super::{ACK, IdempotencyClaim, nak_payload, parse_key_owner};
use crate::connection::{EntryDelivery, JetStreamConnection};
use crate::errors::contention_error;
use crate::limits::{DEAD_LETTER_TTL_MS, MAX_ATTEMPTS};
use crate::nats_queue::NatsQueueInner;
use crate::record::JobRecord;
use crate::store::{self, CommitOutcome, SubjectWrite};

impl NatsQueueInner {
    /// A delivery as a worker receives it. A previous delivery may not have started the job, so the
    /// number of deliveries is read from the job itself.
    pub(crate) async fn claimed_job(
        &self,
        link: &JetStreamConnection,
        priority: JobPriority,
        delivery: EntryDelivery,
    ) -> ClaimedJob {
        let lease = delivery_lease(priority, &delivery);
        let deliveries = match delivery.delivery_count {
            0 | 1 => 1,
            again => match self.read_job(link, &lease.id).await {
                Ok((_, doc)) => doc.map_or(1, |doc| doc.deliveries()),
                Err(_) => u32::try_from(again).unwrap_or(u32::MAX),
            },
        };
        ClaimedJob { lease, payload: delivery.payload, deliveries }
    }

    pub(crate) async fn start_job(
        &self,
        link: &JetStreamConnection,
        lease: &JobLease,
        job: &QueuedJob,
        deliveries: u32,
    ) -> Result<StartDecision, QueueError> {
        for _ in 0..MAX_ATTEMPTS {
            let (expected, known) = self.read_job(link, &lease.id).await?;
            let (mut writes, mut counts) = (Vec::new(), Vec::new());
            let written = lease.written_at();
            let mut doc = match known {
                Some(doc) if doc.status().is_terminal() => {
                    store::acknowledge_delivery(&link.client, &lease.token, ACK).await?;
                    return Ok(StartDecision::Duplicate);
                }
                Some(doc) if !self.owns_entry(link, &doc, lease).await? => {
                    return self.drop_duplicate(link, lease).await;
                }
                Some(doc) => doc,
                // Written by another producer: it is registered when a worker first sees it.
                None => {
                    let digest = job.key_digest();
                    if !digest.is_empty() {
                        match self.read_key(link, &digest).await? {
                            IdempotencyClaim::Taken(..) => {
                                return self.drop_duplicate(link, lease).await;
                            }
                            IdempotencyClaim::Free(expected) => {
                                writes.push(self.key_write(&digest, &lease.id, job, expected))
                            }
                        }
                    }
                    counts.push(("enqueued", 1));
                    JobRecord::new_queued(job, lease.priority, written)
                }
            };
            let time = now_millis();
            // A server that lost its consumers' state restarts its count at one.
            let start = if deliveries.max(doc.deliveries()) > self.options.max_deliveries {
                StartDecision::Dead
            } else if job.expires_at(written).is_some_and(|at| time > at) {
                StartDecision::Expired
            } else {
                doc.begin_attempt(holder_id(&lease.token), entry_sequence(lease), time);
                StartDecision::Run
            };
            if start != StartDecision::Run && counts.is_empty() {
                return Ok(start);
            }
            writes.push(self.job_write(&lease.id, &doc, expected));
            let done = match counts.is_empty() {
                true => store::commit_writes(&link.client, writes).await?,
                false => self.counters.commit(link, &self.subjects, writes, &counts).await?,
            };
            if done != CommitOutcome::Conflict {
                return Ok(start);
            }
        }
        contention_error()
    }

    /// Whether an entry belongs to the job. A producer may have written two entries with one id, or
    /// a second one on the same subject, which replaces the first.
    async fn owns_entry(
        &self,
        link: &JetStreamConnection,
        doc: &JobRecord,
        lease: &JobLease,
    ) -> Result<bool, QueueError> {
        match doc.number("entry") {
            None => Ok(doc.text("priority") == lease.priority.name()),
            Some(own) if own == entry_sequence(lease) => Ok(true),
            Some(own) => Ok(!store::message_exists(link, own).await?),
        }
    }

    /// Drops an entry whose job has another entry.
    async fn drop_duplicate(
        &self,
        link: &JetStreamConnection,
        lease: &JobLease,
    ) -> Result<StartDecision, QueueError> {
        self.counters.increment(link, &self.subjects, &[("enqueued", 1), ("duplicate", 1)]).await?;
        store::acknowledge_delivery(&link.client, &lease.token, ACK).await?;
        Ok(StartDecision::Duplicate)
    }

    pub(crate) async fn finish_job(
        &self,
        link: &JetStreamConnection,
        lease: &JobLease,
        end: &JobCompletion,
    ) -> Result<bool, QueueError> {
        for _ in 0..MAX_ATTEMPTS {
            let (expected, known) = self.read_job(link, &lease.id).await?;
            let mut counts = vec![(end.status.name(), 1)];
            let mut doc = match known {
                // The first result is final.
                Some(doc) if doc.status().is_terminal() => {
                    store::acknowledge_delivery(&link.client, &lease.token, ACK).await?;
                    return Ok(false);
                }
                Some(doc) => doc,
                // The job was never started, because its payload could not be parsed.
                None => {
                    counts.push(("enqueued", 1));
                    let mut doc = JobRecord::default();
                    doc.set("priority", lease.priority.name());
                    doc.set("created_at", lease.written_at());
                    doc.set("attempts", 0);
                    doc
                }
            };
            counts.push(("bytes", -doc.bytes()));
            let ttl = self.options.retention_millis(end.callback_url.is_some());
            doc.finish(end, now_millis(), ttl);
            let mut writes = self.refreshed_key(link, lease, &doc, ttl).await?;
            writes.push(self.job_write(&lease.id, &doc, expected));
            if end.callback_url.is_some() {
                counts.push(("callbacks", 1));
                writes.push(SubjectWrite::new(self.subjects.callback(&lease.id), ""));
            }
            if end.status == JobStatus::Dead {
                let letter =
                    SubjectWrite::new(self.subjects.dead_letter(&lease.id), end.payload.clone());
                writes.push(
                    letter
                        .with_header("Slipway-Error", &one_line(&end.error))
                        .with_ttl_millis(DEAD_LETTER_TTL_MS),
                );
            }
            if self.counters.commit(link, &self.subjects, writes, &counts).await?
                != CommitOutcome::Conflict
            {
                // The completion is stored. If this fails, the entry is delivered once more and
                // dropped then.
                let _ = store::acknowledge_delivery(&link.client, &lease.token, ACK).await;
                return Ok(true);
            }
        }
        contention_error()
    }

    /// Extends the life of an idempotency key to that of its job.
    async fn refreshed_key(
        &self,
        link: &JetStreamConnection,
        lease: &JobLease,
        doc: &JobRecord,
        ttl: u64,
    ) -> Result<Vec<SubjectWrite>, QueueError> {
        let digest = doc.text("idem");
        if digest.is_empty() {
            return Ok(Vec::new());
        }
        let subject = self.subjects.idempotency(digest);
        let kept = store::last_message(link, &subject)
            .await?
            .filter(|kept| parse_key_owner(kept).0 == lease.id);
        let fresh = kept.map(|kept| {
            SubjectWrite::new(subject, kept.payload)
                .expect_sequence(kept.sequence)
                .with_ttl_millis(ttl)
        });
        Ok(fresh.into_iter().collect())
    }

    pub(crate) async fn retry_job(
        &self,
        link: &JetStreamConnection,
        lease: &JobLease,
        again: &RetryRequest,
    ) -> Result<bool, QueueError> {
        for _ in 0..MAX_ATTEMPTS {
            let (expected, doc) = self.read_job(link, &lease.id).await?;
            match doc {
                Some(mut doc) if doc.is_held_by(holder_id(&lease.token)) => {
                    doc.release(&again.error, again.counts);
                    let writes = vec![self.job_write(&lease.id, &doc, expected)];
                    if store::commit_writes(&link.client, writes).await? == CommitOutcome::Conflict
                    {
                        continue;
                    }
                }
                // Another delivery runs it, or it has ended.
                Some(doc) if doc.status() != JobStatus::Queued => return Ok(false),
                // It was taken, but never started.
                _ => {}
            }
            store::acknowledge_delivery(&link.client, &lease.token, &nak_payload(again.delay))
                .await?;
            return Ok(true);
        }
        contention_error()
    }
}

/// Identifies the delivery of a token: the numbers in it of the message and of its deliveries.
fn holder_id(token: &str) -> &str {
    token.strip_prefix("$JS.ACK.").unwrap_or(token)
}

/// The sequence number of an entry's message.
fn entry_sequence(lease: &JobLease) -> u64 {
    lease.entry.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Makes a text valid as the value of a header.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// The lease of a delivery. An invalid id in the name that a producer chose is treated as absent.
fn delivery_lease(priority: JobPriority, delivery: &EntryDelivery) -> JobLease {
    let entry = format!("{}-{}", delivery.written_at, delivery.sequence);
    let id = if is_valid_id(&delivery.name) {
        delivery.name.clone()
    } else {
        entry_id(priority, &entry)
    };
    JobLease { id, priority, entry, token: delivery.token.clone() }
}
