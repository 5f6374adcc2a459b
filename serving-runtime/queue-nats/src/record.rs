//! A job as it is stored, and its transitions as functions without I/O.

use std::collections::BTreeMap;

use slipway_runtime_queue::job::{JobPriority, QueuedJob};
use slipway_runtime_queue::queue::{CallbackOutcome, JobCompletion, JobStatus, StoredJob};

use crate::store::{StoredMessage, SubjectWrite};

/// The header with the fields.
const FIELDS_HEADER: &str = "Slipway-Job";
/// When the job expires, in milliseconds since 1970; absent before it has ended.
const FORGET_AT: &str = "forget_at";
/// Deliveries that do not count towards the largest number of deliveries.
const UNCOUNTED_FIELD: &str = "free";
/// The delivery that runs the job.
const HOLDER: &str = "holder";

/// A job as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobRecord {
    fields: BTreeMap<String, String>,
    result: Vec<u8>,
}

impl JobRecord {
    /// A job that has been waiting since `created` (milliseconds since 1970).
    pub(crate) fn new_queued(job: &QueuedJob, priority: JobPriority, created: u64) -> Self {
        let mut doc = Self::default();
        doc.set("status", JobStatus::Queued.name());
        doc.set("priority", priority.name());
        doc.set("model", &job.model_id);
        doc.set("created_at", created);
        doc.set("attempts", 0);
        doc.set("idem", job.key_digest());
        doc
    }

    /// Parses a stored job; `None` for a message that another program wrote.
    pub(crate) fn from_message(kept: &StoredMessage) -> Option<Self> {
        let fields = serde_json::from_str(kept.headers.get(FIELDS_HEADER)?.as_str()).ok()?;
        Some(Self { fields, result: kept.payload.to_vec() })
    }

    /// The write of the job, on the condition that its subject is still as it was read.
    pub(crate) fn to_write(&self, subject: String, expected: u64, now: u64) -> SubjectWrite {
        // A map of texts can always be written as JSON.
        let fields = serde_json::to_string(&self.fields).unwrap_or_default();
        let write = SubjectWrite::new(subject, self.result.clone())
            .expect_sequence(expected)
            .with_header(FIELDS_HEADER, &fields);
        match self.number(FORGET_AT) {
            Some(at) => write.with_ttl_millis(at.saturating_sub(now)),
            None => write,
        }
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields.get(field).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.text(field).parse().ok()
    }

    pub(crate) fn set(&mut self, field: &str, value: impl ToString) {
        self.fields.insert(field.to_owned(), value.to_string());
    }

    /// Increments a field. Others may write to the stream, so the field may hold any number.
    fn increment(&mut self, field: &str) {
        self.set(field, self.number(field).unwrap_or(0).saturating_add(1));
    }

    fn set_or_drop(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.fields.remove(field);
        } else {
            self.set(field, value);
        }
    }

    pub(crate) fn status(&self) -> JobStatus {
        JobStatus::parse(self.text("status")).unwrap_or(JobStatus::Queued)
    }

    /// Bytes that the job adds to the queue's; never negative, whatever the field holds.
    pub(crate) fn bytes(&self) -> i64 {
        self.text("bytes").parse().unwrap_or(0_i64).max(0)
    }

    /// Number of starts, including this one, without those that do not count.
    pub(crate) fn deliveries(&self) -> u32 {
        let begun = self
            .number("attempts")
            .unwrap_or(0)
            .saturating_sub(self.number(UNCOUNTED_FIELD).unwrap_or(0));
        u32::try_from(begun).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Starts an attempt for a delivery of an entry.
    pub(crate) fn begin_attempt(&mut self, holder: &str, entry: u64, now: u64) {
        self.set("entry", entry);
        self.set("status", JobStatus::Running.name());
        self.set("started_at", now);
        self.increment("attempts");
        self.set(HOLDER, holder);
    }

    /// Whether that delivery runs the job.
    pub(crate) fn is_held_by(&self, holder: &str) -> bool {
        self.status() == JobStatus::Running && self.text(HOLDER) == holder
    }

    /// Returns the job to the queue after an attempt.
    pub(crate) fn release(&mut self, error: &str, counts: bool) {
        self.set("status", JobStatus::Queued.name());
        self.fields.remove(HOLDER);
        if !counts {
            self.increment(UNCOUNTED_FIELD);
        }
        if !error.is_empty() {
            self.set("error", error);
        }
    }

    /// Ends the job; the state is terminal.
    pub(crate) fn finish(&mut self, end: &JobCompletion, now: u64, ttl: u64) {
        self.set("status", end.status.name());
        self.set("finished_at", now);
        self.set(FORGET_AT, now.saturating_add(ttl));
        self.set("version", &end.version);
        self.set_or_drop("error", &end.error);
        self.result.clone_from(&end.result);
        self.fields.remove(HOLDER);
        if let Some(url) = &end.callback_url {
            self.set("callback_url", url);
            self.set("callback_status", "pending");
            self.set("callback_attempts", 0);
            self.set_or_drop("traceparent", end.traceparent.as_deref().unwrap_or_default());
        }
    }

    /// Whether the callback is not yet settled.
    pub(crate) fn is_callback_pending(&self) -> bool {
        self.text("callback_status") == "pending"
    }

    /// Starts an attempt at the callback.
    pub(crate) fn begin_callback(&mut self, now: u64) {
        self.increment("callback_attempts");
        if self.number("callback_first_at").is_none() {
            self.set("callback_first_at", now);
        }
    }

    /// Records the outcome of an attempt at the callback. Returns `false` when that changes
    /// nothing: the callback is settled, or a later attempt is in progress and this one did not
    /// succeed.
    pub(crate) fn record_callback(
        &mut self,
        attempt: u64,
        what: &CallbackOutcome,
        now: u64,
    ) -> bool {
        let latest = self.number("callback_attempts") == Some(attempt);
        if !self.is_callback_pending() || (!latest && *what != CallbackOutcome::Delivered) {
            return false;
        }
        let (status, error) = match what {
            CallbackOutcome::Delivered => ("delivered", ""),
            CallbackOutcome::Retry(_, error) => ("pending", error.as_str()),
            CallbackOutcome::Dead(error) => ("dead", error.as_str()),
        };
        self.set("callback_status", status);
        if status != "pending" {
            self.set("callback_at", now);
        }
        self.set_or_drop("callback_error", error);
        true
    }

    /// The job as clients see it.
    pub(crate) fn to_stored_job(&self) -> StoredJob {
        let mut fields: BTreeMap<_, _> = self
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .collect();
        fields.insert("result".into(), self.result.clone());
        StoredJob { fields }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(status: JobStatus, url: Option<&str>) -> JobCompletion {
        JobCompletion {
            status,
            result: b"{}".to_vec(),
            error: String::new(),
            version: "1".into(),
            callback_url: url.map(str::to_owned),
            traceparent: None,
            payload: Vec::new(),
        }
    }

    fn kept(fields: &str) -> StoredMessage {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(FIELDS_HEADER, fields);
        StoredMessage { sequence: 1, headers, payload: "{}".into(), written_at: 0 }
    }

    proptest! {
        /// Any writer of the stream may write anything: every transition accepts it, results stay
        /// within bounds, and the record survives a round trip.
        #[test]
        fn any_fields_are_taken(
            fields in proptest::collection::btree_map(field(), value(), 0..12),
            steps in proptest::collection::vec(0_u8..6, 0..8),
        ) {
            let text = serde_json::to_string(&fields).unwrap();
            let mut doc = JobRecord::from_message(&kept(&text)).unwrap();
            for step in steps {
                match step {
                    0 => doc.begin_attempt("7.1", 7, 5),
                    1 => doc.release("no", true),
                    2 => doc.release("", false),
                    3 => doc.finish(&end(JobStatus::Succeeded, Some("http://x/")), u64::MAX, 9),
                    4 => doc.begin_callback(u64::MAX),
                    _ => drop(doc.record_callback(u64::MAX, &CallbackOutcome::Delivered, 1)),
                }
                prop_assert!(doc.deliveries() >= 1);
            }
            prop_assert!(doc.bytes() >= 0);
            let _ = (doc.status(), doc.is_callback_pending(), doc.to_stored_job());
            let again = serde_json::to_string(&doc.fields).unwrap();
            prop_assert_eq!(JobRecord::from_message(&kept(&again)).unwrap().fields, doc.fields);
        }

        #[test]
        fn what_is_no_map_of_texts_is_nobody_s_job(text in "[ -~]{0,40}") {
            let map = serde_json::from_str::<BTreeMap<String, String>>(&text).is_ok();
            prop_assert_eq!(JobRecord::from_message(&kept(&text)).is_some(), map);
        }
    }

    fn field() -> impl Strategy<Value = String> {
        let ours = [
            "status",
            "attempts",
            UNCOUNTED_FIELD,
            FORGET_AT,
            HOLDER,
            "bytes",
            "callback_status",
            "callback_attempts",
            "callback_first_at",
        ];
        prop_oneof![9 => proptest::sample::select(ours.to_vec()).prop_map(str::to_owned), 1 => "[a-z_]{0,8}"]
    }

    fn value() -> impl Strategy<Value = String> {
        let odd = [
            "running",
            "succeeded",
            "pending",
            "18446744073709551615",
            "-9223372036854775808",
            "9223372036854775807",
            "1e9",
            "",
        ];
        prop_oneof![4 => proptest::sample::select(odd.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{0,12}", 1 => any::<u64>().prop_map(|n| n.to_string())]
    }

    #[test]
    fn what_was_given_back_does_not_count() {
        let mut doc = JobRecord::default();
        assert_eq!(doc.deliveries(), 1);
        doc.begin_attempt("7.1", 7, 1);
        assert!(doc.is_held_by("7.1") && !doc.is_held_by("7.2") && doc.deliveries() == 2);
        doc.release("", false);
        assert!(!doc.is_held_by("7.1") && doc.deliveries() == 1);
        doc.begin_attempt("7.2", 7, 2);
        doc.release("no", true);
        assert_eq!(
            (doc.deliveries(), doc.number("attempts"), doc.text("error")),
            (2, Some(2), "no")
        );
    }

    #[test]
    fn a_callback_is_settled_once_and_by_a_late_success_too() {
        let mut doc = JobRecord::default();
        doc.finish(&end(JobStatus::Succeeded, Some("http://x/")), 5, 1000);
        doc.begin_callback(6);
        doc.begin_callback(9);
        assert_eq!(
            (doc.number("callback_attempts"), doc.number("callback_first_at")),
            (Some(2), Some(6))
        );
        let retry = CallbackOutcome::Retry(std::time::Duration::ZERO, "503".into());
        assert!(!doc.record_callback(1, &retry, 10), "a later attempt is under way");
        assert!(
            doc.record_callback(2, &retry, 10)
                && doc.is_callback_pending()
                && doc.text("callback_error") == "503"
        );
        assert!(
            doc.record_callback(1, &CallbackOutcome::Delivered, 11)
                && !doc.is_callback_pending()
                && doc.text("callback_error").is_empty()
        );
        assert!(!doc.record_callback(2, &CallbackOutcome::Dead("x".into()), 12));
        assert_eq!(doc.to_stored_job().text("callback_status"), Some("delivered"));
    }
}
