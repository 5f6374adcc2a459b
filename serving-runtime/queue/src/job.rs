//! The format of a job in the queue.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Largest length of a `traceparent` in bytes: version 00 has 55, later versions may have more.
const MAX_TRACEPARENT: usize = 256;
/// Largest length of a callback's URL in bytes.
pub const MAX_URL: usize = 2048;
/// Largest length of an idempotency key in bytes.
pub const MAX_KEY: usize = 255;
/// Largest length of a producer's id in bytes.
pub const MAX_ID: usize = 64;
/// Longest time to live, in seconds: 30 days.
pub const MAX_TTL_SECONDS: u64 = 30 * 24 * 3600;

/// The priority of a job, which selects its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobPriority {
    /// Served before all others.
    High,
    /// The default.
    #[default]
    Normal,
    /// Served after all others.
    Low,
}

impl JobPriority {
    /// All priorities, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name in the format and in keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// A job: `POST /v2/models/{m}/jobs` writes it, and other producers may write it to the stream as
/// field `job`. Unknown fields are ignored, so that an older worker can read the jobs of a newer
/// producer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuedJob {
    /// 1 to 64 characters of a-z, A-Z, 0-9, `-` and `_`. Empty in a producer's entry: then the
    /// entry's own id is the id of the job.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(alias = "model")]
    pub model_id: String,
    /// Version of the model; absent or `latest`: the version that the worker serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// An inference request of the Open Inference Protocol v2, JSON without binary tensors.
    pub data: Box<RawValue>,
    /// The URL to which the result is POSTed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// Jobs with the same key are one job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    #[serde(default)]
    pub priority: JobPriority,
    /// Milliseconds since 1970 after which the job is not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// The same, in seconds since `created_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Milliseconds since 1970. Absent: the time when the entry was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<u64>,
    /// W3C `traceparent` of the producer: the worker and the callback continue this trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl QueuedJob {
    /// Parses the payload of an entry.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    pub fn parse(payload: &[u8], max_bytes: usize) -> Result<Self, String> {
        if payload.is_empty() {
            return Err("the entry has no field `job`; write the job's JSON into it".into());
        }
        if payload.len() > max_bytes {
            return Err(format!(
                "the job has {} bytes; send at most {max_bytes} (--max-job-bytes)",
                payload.len()
            ));
        }
        let job: Self = serde_json::from_slice(payload)
            .map_err(|e| format!("the job is not valid JSON of a job: {e}"))?;
        job.check()?;
        Ok(job)
    }

    /// Checks the bounds of all fields but `data`.
    ///
    /// # Errors
    /// Names the field and its valid values.
    pub fn check(&self) -> Result<(), String> {
        if !self.id.is_empty() && !is_valid_id(&self.id) {
            return Err("id: want 1 to 64 of a-z, A-Z, 0-9, - and _; or leave it out".into());
        }
        if let Some(url) = &self.callback_url
            && url.len() > MAX_URL
        {
            return Err(format!("callback_url: has {} bytes; send at most {MAX_URL}", url.len()));
        }
        if let Some(key) = &self.idempotency_key {
            check_key(key)?;
        }
        if self.traceparent.as_ref().is_some_and(|it| it.len() > MAX_TRACEPARENT) {
            return Err(format!(
                "traceparent: want at most {MAX_TRACEPARENT} bytes, as of W3C Trace Context"
            ));
        }
        if self.deadline.is_some() && self.ttl_seconds.is_some() {
            return Err("deadline, ttl_seconds: send one of them".into());
        }
        if self.ttl_seconds.is_some_and(|ttl| ttl == 0 || ttl > MAX_TTL_SECONDS) {
            return Err(format!("ttl_seconds: want 1 to {MAX_TTL_SECONDS}"));
        }
        Ok(())
    }

    /// Milliseconds since 1970 after which the job is not started; `written` is the time when its
    /// entry was written.
    pub fn expires_at(&self, written: u64) -> Option<u64> {
        let created = self.created_at.unwrap_or(written);
        self.deadline
            .or_else(|| Some(created.saturating_add(self.ttl_seconds?.saturating_mul(1000))))
    }

    /// The requested version, if there is one.
    pub fn pinned_version(&self) -> Option<&str> {
        self.version.as_deref().filter(|v| !v.is_empty() && *v != "latest")
    }

    /// The hash on which two jobs with one idempotency key must agree: hex of SHA-256 over model,
    /// version, data and callback.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let parts = [
            self.model_id.as_str(),
            self.pinned_version().unwrap_or_default(),
            self.callback_url.as_deref().unwrap_or_default(),
            self.data.get(),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }

    /// The idempotency key as part of a Redis key; empty when there is none.
    pub fn key_digest(&self) -> String {
        self.idempotency_key
            .as_deref()
            .map(|key| hex::encode(Sha256::digest(key)))
            .unwrap_or_default()
    }
}

/// Whether a text is a valid id of a job.
pub fn is_valid_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Checks an idempotency key.
///
/// # Errors
/// The valid values.
pub fn check_key(key: &str) -> Result<(), String> {
    let fits =
        (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b));
    fits.then_some(())
        .ok_or_else(|| format!("idempotency_key: want 1 to {MAX_KEY} printable ASCII characters"))
}

/// A new id: 128 random bits in hex.
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// The id of a job that a producer wrote without one: derived from the entry's id, so it is the
/// same at every delivery.
pub fn entry_id(priority: JobPriority, entry: &str) -> String {
    format!("{}-{entry}", priority.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<QueuedJob, String> {
        QueuedJob::parse(json.as_bytes(), 1000)
    }

    #[test]
    fn a_producer_needs_only_model_and_data() {
        let job = parse(r#"{"model": "m", "data": {"inputs": []}, "later": 1}"#).unwrap();
        assert_eq!(
            (job.model_id.as_str(), job.priority, job.pinned_version()),
            ("m", JobPriority::Normal, None)
        );
        assert_eq!(job.expires_at(5), None);
        let job = parse(r#"{"model_id": "m", "version": "latest", "data": {}, "ttl_seconds": 2}"#)
            .unwrap();
        assert_eq!((job.pinned_version(), job.expires_at(500)), (None, Some(2500)));
        assert_eq!(entry_id(JobPriority::Low, "12-0"), "low-12-0");
        assert!(
            is_valid_id(&entry_id(JobPriority::Normal, "1795515278022-18446744073709551615"))
                && is_valid_id(&new_id())
        );
    }

    #[test]
    fn everything_is_bounded_and_the_field_is_named() {
        let long = "x".repeat(MAX_KEY + 1);
        for (json, part) in [
            ("".to_owned(), "`job`"),
            (" ".repeat(1001), "--max-job-bytes"),
            ("[]".into(), "not valid JSON"),
            (r#"{"data": {}}"#.into(), "model_id"),
            (r#"{"model_id": "m"}"#.into(), "data"),
            (r#"{"model_id": "m", "data": {}, "id": "a b"}"#.into(), "id:"),
            (r#"{"model_id": "m", "data": {}, "priority": "urgent"}"#.into(), "urgent"),
            (r#"{"model_id": "m", "data": {}, "ttl_seconds": 0}"#.into(), "ttl_seconds"),
            (
                r#"{"model_id": "m", "data": {}, "ttl_seconds": 1, "deadline": 1}"#.into(),
                "deadline, ttl_seconds",
            ),
            (
                format!(r#"{{"model_id": "m", "data": {{}}, "idempotency_key": "{long}"}}"#),
                "idempotency_key",
            ),
            (
                r#"{"model_id": "m", "data": {}, "idempotency_key": "a\u0000b"}"#.into(),
                "idempotency_key",
            ),
        ] {
            let error = parse(&json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn the_fingerprint_is_of_the_content() {
        let of = |json: &str| parse(json).unwrap().fingerprint();
        let base = of(r#"{"model_id": "m", "data": {"a": 1}}"#);
        assert_eq!(
            base,
            of(r#"{"model_id": "m", "data": {"a": 1}, "priority": "high", "version": "latest"}"#)
        );
        for other in [
            r#"{"model_id": "n", "data": {"a": 1}}"#,
            r#"{"model_id": "m", "data": {"a": 2}}"#,
            r#"{"model_id": "m", "version": "2", "data": {"a": 1}}"#,
            r#"{"model_id": "m", "callback_url": "http://x/", "data": {"a": 1}}"#,
        ] {
            assert_ne!(base, of(other));
        }
    }
}
