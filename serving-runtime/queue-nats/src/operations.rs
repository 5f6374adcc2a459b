//! The steps of jobs and callbacks. Each reads, decides by [`JobRecord`], writes if nothing has
//! changed since, and begins again if something has.

use std::time::Instant;

use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::job::{JobPriority, QueuedJob, entry_id, is_valid_id};
use slipway_runtime_queue::queue::{
    CallbackOutcome, ClaimedJob, DueCallback, EnqueueOutcome, JobCompletion, JobLease, JobStatus,
    QueueError, QueueLag, RetryRequest, StartDecision,
};

use crate::connection::{EntryDelivery, JetStreamConnection};
use crate::counters::CounterLedger;
use crate::errors::{contention_error, unexpected_error};
use crate::limits::{DEAD_LETTER_TTL_MS, MAX_ATTEMPTS, MESSAGE_OVERHEAD};
use crate::nats_queue::NatsQueueInner;
use crate::record::JobRecord;
use crate::store::{self, CommitOutcome, StoredMessage, SubjectWrite};

const ACK: &str = "+ACK";

/// What a key of idempotency leads to.
enum IdempotencyClaim {
    /// There is none, or its job is forgotten; the number of what is kept under it.
    Free(u64),
    /// The job that has it, and the fingerprint of its content.
    Taken(String, String),
}

/// Which delivery a token is of: the numbers in it of the message and of its deliveries.
fn holder_id(token: &str) -> &str {
    token.strip_prefix("$JS.ACK.").unwrap_or(token)
}

/// The number of an entry's message.
fn entry_sequence(lease: &JobLease) -> u64 {
    lease.entry.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn nak_payload(delay: std::time::Duration) -> String {
    if delay.is_zero() {
        "-NAK".into()
    } else {
        format!("-NAK {{\"delay\": {}}}", delay.as_nanos())
    }
}

impl NatsQueueInner {
    /// A job as it is kept, and the number of its message; 0 when there is none.
    pub(crate) async fn read_job(
        &self,
        link: &JetStreamConnection,
        id: &str,
    ) -> Result<(u64, Option<JobRecord>), QueueError> {
        Ok(match store::last_message(link, &self.subjects.job(id)).await? {
            Some(kept) => (kept.sequence, JobRecord::from_message(&kept)),
            None => (0, None),
        })
    }

    fn job_write(&self, id: &str, doc: &JobRecord, expected: u64) -> SubjectWrite {
        doc.to_write(self.subjects.job(id), expected, now_millis())
    }

    async fn read_key(
        &self,
        link: &JetStreamConnection,
        digest: &str,
    ) -> Result<IdempotencyClaim, QueueError> {
        let Some(kept) = store::last_message(link, &self.subjects.idempotency(digest)).await?
        else {
            return Ok(IdempotencyClaim::Free(0));
        };
        let (id, print) = parse_key_owner(&kept);
        if self.read_job(link, &id).await?.0 > 0 {
            Ok(IdempotencyClaim::Taken(id, print))
        } else {
            Ok(IdempotencyClaim::Free(kept.sequence))
        }
    }

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

    /// How many jobs there are, when there is no room for another of `size` bytes.
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
        // However long that took: it is the newest that there is.
        Ok((!self.capacity.try_reserve(size, bounds, asked)).then_some(entries))
    }

    /// Makes a key lead to a job.
    fn key_write(&self, digest: &str, id: &str, job: &QueuedJob, expected: u64) -> SubjectWrite {
        let text = format!("{id} {}", job.fingerprint());
        SubjectWrite::new(self.subjects.idempotency(digest), text)
            .expect_sequence(expected)
            .with_ttl_millis(self.options.retention_millis(job.callback_url.is_some()))
    }

    /// A delivery as a worker gets it. What the server handed out before may never have been begun;
    /// the job itself knows.
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
                // Written by a producer of its own: it is registered when it is first seen.
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
            // A server that lost its consumers' state counts from one again.
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

    /// Whether an entry is the job's own. A producer may have written two of one id; or one again
    /// on the same subject, which takes the first one's place.
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

    /// An entry of a job that has another one.
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
                // The first result stands.
                Some(doc) if doc.status().is_terminal() => {
                    store::acknowledge_delivery(&link.client, &lease.token, ACK).await?;
                    return Ok(false);
                }
                Some(doc) => doc,
                // Its payload could not be read, so that it never began.
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
                // The end is kept. If this fails, the entry is handed out once more, and dropped
                // then.
                let _ = store::acknowledge_delivery(&link.client, &lease.token, ACK).await;
                return Ok(true);
            }
        }
        contention_error()
    }

    /// Lets a key of idempotency live as long as its job.
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
                // It was taken, and never begun.
                _ => {}
            }
            store::acknowledge_delivery(&link.client, &lease.token, &nak_payload(again.delay))
                .await?;
            return Ok(true);
        }
        contention_error()
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
            // If this fails, the entry is handed out once more, and dropped then.
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

    pub(crate) async fn measure_lag(
        &self,
        link: &JetStreamConnection,
    ) -> Result<QueueLag, QueueError> {
        let entries = self.subjects.every_entry();
        let (infos, sums, oldest) = futures::future::try_join3(
            link.consumer_infos(),
            CounterLedger::totals(link, &self.subjects),
            store::first_written(link, &entries, 1),
        )
        .await?;
        let (work, calls) = infos.split_at(JobPriority::ALL.len().min(infos.len()));
        let (mut callbacks, mut late) = (0, 0);
        if let Some(calls) = calls.first() {
            callbacks = calls.num_pending + calls.num_ack_pending as u64;
            if calls.num_pending > 0 {
                let next = calls.delivered.stream_sequence + 1;
                let written = store::first_written(link, &self.subjects.callbacks(), next).await?;
                late = written.map_or(0, |at| now_millis().saturating_sub(at));
            }
        }
        Ok(QueueLag {
            waiting: work.iter().map(|info| info.num_pending).sum(),
            taken: work.iter().map(|info| info.num_ack_pending as u64).sum(),
            oldest: oldest.map_or(0, |at| now_millis().saturating_sub(at)),
            callbacks,
            callbacks_late: late,
            totals: sums
                .into_iter()
                .filter_map(|(name, n)| Some((name, u64::try_from(n).ok()?)))
                .collect(),
        })
    }

    /// A callback that was handed out, if it is still to be made.
    pub(crate) async fn begin_callback(
        &self,
        link: &JetStreamConnection,
        delivery: EntryDelivery,
    ) -> Result<Option<DueCallback>, QueueError> {
        let id = delivery.name;
        for _ in 0..MAX_ATTEMPTS {
            let (expected, doc) = self.read_job(link, &id).await?;
            let Some(mut doc) = doc.filter(JobRecord::is_callback_pending) else {
                if expected == 0 {
                    // The result is forgotten already: there is nothing left to tell.
                    self.counters.increment(link, &self.subjects, &[("callbacks_dead", 1)]).await?;
                }
                store::acknowledge_delivery(&link.client, &delivery.token, ACK).await?;
                return Ok(None);
            };
            let time = now_millis();
            doc.begin_callback(time);
            if store::commit_writes(&link.client, vec![self.job_write(&id, &doc, expected)]).await?
                != CommitOutcome::Conflict
            {
                let age = time.saturating_sub(doc.number("callback_first_at").unwrap_or(time));
                return Ok(Some(DueCallback {
                    id,
                    job: doc.to_stored_job(),
                    age,
                    token: delivery.token,
                }));
            }
        }
        contention_error()
    }

    pub(crate) async fn record_callback(
        &self,
        link: &JetStreamConnection,
        due: &DueCallback,
        what: &CallbackOutcome,
    ) -> Result<bool, QueueError> {
        let attempt = due.job.number("callback_attempts").unwrap_or(1);
        for _ in 0..MAX_ATTEMPTS {
            let (expected, doc) = self.read_job(link, &due.id).await?;
            let Some(mut doc) = doc else { return Ok(false) };
            if !doc.record_callback(attempt, what, now_millis()) {
                return Ok(false);
            }
            let mut writes = vec![self.job_write(&due.id, &doc, expected)];
            let (count, how) = match what {
                CallbackOutcome::Delivered => (Some("callbacks_delivered"), ACK.to_owned()),
                CallbackOutcome::Dead(_) => (Some("callbacks_dead"), ACK.to_owned()),
                CallbackOutcome::Retry(delay, _) => (None, nak_payload(*delay)),
            };
            if let CallbackOutcome::Dead(error) = what {
                let letter = serde_json::json!({"id": due.id, "url": doc.text("callback_url"), "error": error});
                let letter =
                    SubjectWrite::new(self.subjects.undelivered(&due.id), letter.to_string());
                writes.push(letter.with_ttl_millis(DEAD_LETTER_TTL_MS));
            }
            let done = match count {
                Some(count) => {
                    self.counters.commit(link, &self.subjects, writes, &[(count, 1)]).await?
                }
                None => store::commit_writes(&link.client, writes).await?,
            };
            if done != CommitOutcome::Conflict {
                store::acknowledge_delivery(&link.client, &due.token, &how).await?;
                return Ok(true);
            }
        }
        contention_error()
    }
}

/// The job of a key, and its fingerprint.
fn parse_key_owner(kept: &StoredMessage) -> (String, String) {
    let text = String::from_utf8_lossy(&kept.payload);
    let (id, print) = text.split_once(' ').unwrap_or_default();
    (id.to_owned(), print.to_owned())
}

/// A text that may stand in a header.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// The lease of a delivery. What is no id, in the name that a producer chose, is as good as none.
fn delivery_lease(priority: JobPriority, delivery: &EntryDelivery) -> JobLease {
    let entry = format!("{}-{}", delivery.written_at, delivery.sequence);
    let id = if is_valid_id(&delivery.name) {
        delivery.name.clone()
    } else {
        entry_id(priority, &entry)
    };
    JobLease { id, priority, entry, token: delivery.token.clone() }
}
