//! Reads of one subject, and writes of several that happen together or not at all.

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;

use super::super::queue::QueueError;
use super::link::{Link, millis};
use super::{failed, unexpected};

/// The server's codes for a write that expected another last message of its subject.
const CONFLICTS: [u64; 2] = [10071, 10164];
/// Answers to one question for several subjects that are read.
const MOST: usize = 10_000;

/// What a subject holds.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sequence: u64,
    /// Milliseconds since 1970, by the server's clock.
    pub(super) written: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// A message to be written.
#[derive(Debug, Clone)]
pub(super) struct Write {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Write {
    pub(super) fn new(subject: String, payload: impl Into<Bytes>) -> Self {
        Self { subject, headers: HeaderMap::new(), payload: payload.into() }
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Bytes on the wire, but for what names take.
    pub(super) fn size(&self) -> usize {
        let headers = self.headers.iter().flat_map(|(_, values)| values).map(|value| value.as_str().len());
        self.payload.len() + headers.sum::<usize>()
    }

    /// Only when the subject's last message is still this one; 0 for none.
    pub(super) fn expect(self, sequence: u64) -> Self {
        self.header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE.as_ref(), &sequence.to_string())
    }

    /// Forgotten after so many milliseconds, rounded up to seconds.
    pub(super) fn forget_after(self, millis: u64) -> Self {
        self.header("Nats-TTL", &format!("{}s", millis.div_ceil(1000).max(1)))
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// What became of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// They are there.
    Done,
    /// None is: another was faster.
    Conflict,
}

/// What the server says to writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are there; the last one's number in the stream.
    Done(u64),
    /// None is: another was faster.
    Conflict,
    /// None is, and why: the stream is full, out of resources, without a leader.
    Refused(String),
}

impl Verdict {
    /// For who wrote: what was refused may be better later.
    pub(super) fn commit(self) -> Result<Commit, QueueError> {
        match self {
            Self::Done(_) => Ok(Commit::Done),
            Self::Conflict => Ok(Commit::Conflict),
            Self::Refused(why) => Err(QueueError::Unavailable(why)),
        }
    }
}

#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The last message of a subject, as the leader has it: what was written is seen.
pub(super) async fn last(link: &Link, subject: &str) -> Result<Option<Kept>, QueueError> {
    match link.stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(Kept {
            sequence: message.sequence,
            written: millis(message.time.unix_timestamp_nanos()),
            headers: message.headers,
            payload: message.payload,
        })),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Whether a message is there.
pub(super) async fn exists(link: &Link, sequence: u64) -> Result<bool, QueueError> {
    match link.stream.get_raw_message(sequence).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

/// When the first message was written that matches the subject and has this number or a later one.
pub(super) async fn first_written(link: &Link, subject: &str, from: u64) -> Result<Option<u64>, QueueError> {
    match link.stream.raw_message_builder().sequence(from.max(1)).next_by_subject(subject).send().await {
        Ok(message) => Ok(Some(millis(message.time.unix_timestamp_nanos()))),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// The last messages of all subjects that match, as some replica has them: subject and what it holds.
pub(super) async fn all_last(link: &Link, stream: &str, subject: &str) -> Result<Vec<(String, Kept)>, QueueError> {
    let inbox = link.client.new_inbox();
    let mut answers = link.client.subscribe(inbox.clone()).await.map_err(failed)?;
    let question = serde_json::json!({"multi_last": [subject], "batch": MOST}).to_string();
    let to = format!("$JS.API.DIRECT.GET.{stream}");
    link.client.publish_with_reply(to, inbox, question.into()).await.map_err(failed)?;
    let mut all = Vec::new();
    let time = link.client.timeout().unwrap_or(super::ANSWER);
    while let Some(message) = tokio::time::timeout(time, answers.next()).await.map_err(failed)? {
        // 204: that was all; 404: nothing matches; anything else is an error of the server's.
        match message.status.map(|status| status.as_u16()) {
            None => {}
            Some(204 | 404) => return Ok(all),
            Some(other) => return Err(unexpected(format!("status {other} for a direct get"))),
        }
        let headers = message.headers.unwrap_or_default();
        let text = |name: &str| headers.get(name).map(|v| v.as_str().to_owned()).unwrap_or_default();
        let (sequence, subject) = (text("Nats-Sequence").parse().map_err(unexpected)?, text("Nats-Subject"));
        all.push((
            subject,
            Kept { sequence, written: written(&text("Nats-Time-Stamp")), headers, payload: message.payload },
        ));
    }
    Err(QueueError::Unavailable("the connection ended".into()))
}

/// Milliseconds since 1970 of a time as of RFC 3339; 0 when it is none.
fn written(text: &str) -> u64 {
    async_nats::datetime::parse_rfc3339(text).map(|at| millis(at.unix_timestamp_nanos())).unwrap_or_default()
}

/// Writes one message, or several as one atomic batch (NATS ADR-50).
pub(super) async fn commit(client: &Client, writes: Vec<Write>) -> Result<Commit, QueueError> {
    write(client, writes).await?.commit()
}

/// As [`commit`], for whoever goes on by what the server says.
pub(super) async fn write(client: &Client, mut writes: Vec<Write>) -> Result<Verdict, QueueError> {
    let Some(mut last) = writes.pop() else { return Ok(Verdict::Done(0)) };
    if !writes.is_empty() {
        let batch = hex::encode(rand::random::<[u8; 16]>());
        let numbered = |write: Write, n: usize| {
            write.header("Nats-Batch-Id", &batch).header("Nats-Batch-Sequence", &(n + 1).to_string())
        };
        let before = writes.len();
        for (n, write) in writes.into_iter().enumerate() {
            let Write { subject, headers, payload } = numbered(write, n);
            client.publish_with_headers(subject, headers, payload).await.map_err(failed)?;
        }
        last = numbered(last, before).header("Nats-Batch-Commit", "1");
    }
    let answer = client.request_with_headers(last.subject, last.headers, last.payload).await.map_err(failed)?;
    let ack: Ack = serde_json::from_slice(&answer.payload).map_err(unexpected)?;
    match (ack.error, ack.seq) {
        (Some(error), _) if CONFLICTS.contains(&error.err_code) => Ok(Verdict::Conflict),
        (Some(error), _) => Ok(Verdict::Refused(format!("{} ({})", error.description, error.err_code))),
        (None, Some(sequence)) => Ok(Verdict::Done(sequence)),
        (None, None) => Err(unexpected("an answer to a write without a sequence")),
    }
}

/// Acknowledges a delivery in some way, and waits until that is known.
pub(super) async fn settle(client: &Client, token: &str, how: &str) -> Result<(), QueueError> {
    client.request(token.to_owned(), how.to_owned().into()).await.map(drop).map_err(failed)
}
