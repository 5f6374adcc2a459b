//! The steps of jobs and callbacks. Each reads, decides by [`JobRecord`], writes if nothing has
//! changed since, and starts again otherwise.

mod callbacks;
mod enqueue;
mod execute;
mod lag;

use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::job::QueuedJob;
use slipway_runtime_queue::queue::QueueError;

use crate::connection::JetStreamConnection;
use crate::nats_queue::NatsQueueInner;
use crate::record::JobRecord;
use crate::store::{self, StoredMessage, SubjectWrite};

const ACK: &str = "+ACK";

/// The state of an idempotency key.
enum IdempotencyClaim {
    /// No job has it, or its job has expired; the sequence number of the key's message.
    Free(u64),
    /// The job that has it, and the fingerprint of its content.
    Taken(String, String),
}

fn nak_payload(delay: std::time::Duration) -> String {
    if delay.is_zero() {
        "-NAK".into()
    } else {
        format!("-NAK {{\"delay\": {}}}", delay.as_nanos())
    }
}

impl NatsQueueInner {
    /// A stored job and the sequence number of its message; 0 when there is none.
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

    /// The write that assigns a key to a job.
    fn key_write(&self, digest: &str, id: &str, job: &QueuedJob, expected: u64) -> SubjectWrite {
        let text = format!("{id} {}", job.fingerprint());
        SubjectWrite::new(self.subjects.idempotency(digest), text)
            .expect_sequence(expected)
            .with_ttl_millis(self.options.retention_millis(job.callback_url.is_some()))
    }
}

/// The job of a key, and its fingerprint.
fn parse_key_owner(kept: &StoredMessage) -> (String, String) {
    let text = String::from_utf8_lossy(&kept.payload);
    let (id, print) = text.split_once(' ').unwrap_or_default();
    (id.to_owned(), print.to_owned())
}
