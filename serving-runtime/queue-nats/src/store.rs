//! Reads of single subjects, and atomic writes of several.

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use slipway_runtime_queue::queue::QueueError;

use crate::connection::{JetStreamConnection, nanos_to_millis};
use crate::errors::{unavailable_error, unexpected_error};

/// The server's error codes for a write that expected another last message of its subject.
const CONFLICT_CODES: [u64; 2] = [10071, 10164];
/// Largest number of answers to a read of several subjects.
const MAX_ANSWERS: usize = 10_000;

/// The last message of a subject.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) sequence: u64,
    /// Milliseconds since 1970, by the server's clock.
    pub(crate) written_at: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// A message to be written.
#[derive(Debug, Clone)]
pub(crate) struct SubjectWrite {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl SubjectWrite {
    pub(crate) fn new(subject: String, payload: impl Into<Bytes>) -> Self {
        Self { subject, headers: HeaderMap::new(), payload: payload.into() }
    }

    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Size on the wire in bytes, without names.
    pub(crate) fn size(&self) -> usize {
        let headers =
            self.headers.iter().flat_map(|(_, values)| values).map(|value| value.as_str().len());
        self.payload.len() + headers.sum::<usize>()
    }

    /// Writes only if the subject's last message has this sequence number; 0 for no message.
    pub(crate) fn expect_sequence(self, sequence: u64) -> Self {
        self.with_header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE.as_ref(), &sequence.to_string())
    }

    /// Deletes the message after `millis` milliseconds, rounded up to seconds.
    pub(crate) fn with_ttl_millis(self, millis: u64) -> Self {
        self.with_header("Nats-TTL", &format!("{}s", millis.div_ceil(1000).max(1)))
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// The outcome of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// All are stored.
    Committed,
    /// None is stored: another writer was first.
    Conflict,
}

/// The server's answer to writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteResponse {
    /// All are stored; the last one's sequence number in the stream.
    Committed(u64),
    /// None is stored: another writer was first.
    Conflict,
    /// None is stored, and why: the stream is full, out of resources, or without a leader.
    Refused(String),
}

impl WriteResponse {
    /// The outcome for the caller; a refusal counts as unavailable, because it may be transient.
    pub(crate) fn into_outcome(self) -> Result<CommitOutcome, QueueError> {
        match self {
            Self::Committed(_) => Ok(CommitOutcome::Committed),
            Self::Conflict => Ok(CommitOutcome::Conflict),
            Self::Refused(why) => Err(QueueError::Unavailable(why)),
        }
    }
}

#[derive(Deserialize)]
struct PublishAck {
    seq: Option<u64>,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The last message of a subject, read from the leader, so earlier writes are visible.
pub(crate) async fn last_message(
    link: &JetStreamConnection,
    subject: &str,
) -> Result<Option<StoredMessage>, QueueError> {
    match link.stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(StoredMessage {
            sequence: message.sequence,
            written_at: nanos_to_millis(message.time.unix_timestamp_nanos()),
            headers: message.headers,
            payload: message.payload,
        })),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(unavailable_error(e)),
    }
}

pub(crate) async fn message_exists(
    link: &JetStreamConnection,
    sequence: u64,
) -> Result<bool, QueueError> {
    match link.stream.get_raw_message(sequence).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
        Err(e) => Err(unavailable_error(e)),
    }
}

/// When the first message was written that matches the subject and has this number or a later one.
pub(crate) async fn first_written(
    link: &JetStreamConnection,
    subject: &str,
    from: u64,
) -> Result<Option<u64>, QueueError> {
    match link
        .stream
        .raw_message_builder()
        .sequence(from.max(1))
        .next_by_subject(subject)
        .send()
        .await
    {
        Ok(message) => Ok(Some(nanos_to_millis(message.time.unix_timestamp_nanos()))),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(unavailable_error(e)),
    }
}

/// The last messages of all matching subjects, read from any replica: subject and message.
pub(crate) async fn last_messages(
    link: &JetStreamConnection,
    stream: &str,
    subject: &str,
) -> Result<Vec<(String, StoredMessage)>, QueueError> {
    let inbox = link.client.new_inbox();
    let mut answers = link.client.subscribe(inbox.clone()).await.map_err(unavailable_error)?;
    let question = serde_json::json!({"multi_last": [subject], "batch": MAX_ANSWERS}).to_string();
    let to = format!("$JS.API.DIRECT.GET.{stream}");
    link.client.publish_with_reply(to, inbox, question.into()).await.map_err(unavailable_error)?;
    let mut all = Vec::new();
    let time = link.client.timeout().unwrap_or(crate::limits::RESPONSE_TIMEOUT);
    while let Some(message) =
        tokio::time::timeout(time, answers.next()).await.map_err(unavailable_error)?
    {
        // 204: end of the answers; 404: no match; other codes are errors of the server.
        match message.status.map(|status| status.as_u16()) {
            None => {}
            Some(204 | 404) => return Ok(all),
            Some(other) => {
                return Err(unexpected_error(format!("status {other} for a direct get")));
            }
        }
        let headers = message.headers.unwrap_or_default();
        let text =
            |name: &str| headers.get(name).map(|v| v.as_str().to_owned()).unwrap_or_default();
        let (sequence, subject) =
            (text("Nats-Sequence").parse().map_err(unexpected_error)?, text("Nats-Subject"));
        all.push((
            subject,
            StoredMessage {
                sequence,
                written_at: parse_timestamp(&text("Nats-Time-Stamp")),
                headers,
                payload: message.payload,
            },
        ));
    }
    Err(QueueError::Unavailable("the connection ended".into()))
}

/// Milliseconds since 1970 of an RFC 3339 time; 0 when it is invalid.
fn parse_timestamp(text: &str) -> u64 {
    async_nats::datetime::parse_rfc3339(text)
        .map(|at| nanos_to_millis(at.unix_timestamp_nanos()))
        .unwrap_or_default()
}

/// Writes one message, or several as one atomic batch (NATS ADR-50).
pub(crate) async fn commit_writes(
    client: &Client,
    writes: Vec<SubjectWrite>,
) -> Result<CommitOutcome, QueueError> {
    write_batch(client, writes).await?.into_outcome()
}

/// Like [`commit_writes`], for callers that need the server's answer.
pub(crate) async fn write_batch(
    client: &Client,
    mut writes: Vec<SubjectWrite>,
) -> Result<WriteResponse, QueueError> {
    let Some(mut last) = writes.pop() else { return Ok(WriteResponse::Committed(0)) };
    if !writes.is_empty() {
        let batch = hex::encode(rand::random::<[u8; 16]>());
        let numbered = |write: SubjectWrite, n: usize| {
            write
                .with_header("Nats-Batch-Id", &batch)
                .with_header("Nats-Batch-Sequence", &(n + 1).to_string())
        };
        let before = writes.len();
        for (n, write) in writes.into_iter().enumerate() {
            let SubjectWrite { subject, headers, payload } = numbered(write, n);
            client
                .publish_with_headers(subject, headers, payload)
                .await
                .map_err(unavailable_error)?;
        }
        last = numbered(last, before).with_header("Nats-Batch-Commit", "1");
    }
    let answer = client
        .request_with_headers(last.subject, last.headers, last.payload)
        .await
        .map_err(unavailable_error)?;
    let ack: PublishAck = serde_json::from_slice(&answer.payload).map_err(unexpected_error)?;
    match (ack.error, ack.seq) {
        (Some(error), _) if CONFLICT_CODES.contains(&error.err_code) => Ok(WriteResponse::Conflict),
        (Some(error), _) => {
            Ok(WriteResponse::Refused(format!("{} ({})", error.description, error.err_code)))
        }
        (None, Some(sequence)) => Ok(WriteResponse::Committed(sequence)),
        (None, None) => Err(unexpected_error("an answer to a write without a sequence")),
    }
}

/// Acknowledges a delivery and waits for the confirmation.
pub(crate) async fn acknowledge_delivery(
    client: &Client,
    token: &str,
    how: &str,
) -> Result<(), QueueError> {
    client
        .request(token.to_owned(), how.to_owned().into())
        .await
        .map(drop)
        .map_err(unavailable_error)
}
