//! Due callbacks, and the outcomes of their attempts.

use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::queue::{CallbackOutcome, DueCallback, QueueError};

use super::{ACK, nak_payload};
use crate::connection::{EntryDelivery, JetStreamConnection};
use crate::errors::contention_error;
use crate::limits::{DEAD_LETTER_TTL_MS, MAX_ATTEMPTS};
use crate::nats_queue::NatsQueueInner;
use crate::record::JobRecord;
use crate::store::{self, CommitOutcome, SubjectWrite};

impl NatsQueueInner {
    /// Starts an attempt at a delivered callback, if the callback is not yet settled.
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
                    // The result has expired already, so there is nothing to send.
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
