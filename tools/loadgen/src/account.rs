//! The account of every request. Each request that is sent has exactly one outcome: `sent =
//! answered + failed + in flight`, always.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::histogram::LatencyHistogram;
use crate::protocol::AnswerOrigin;
use crate::reason::FailureReason;

/// More revisions than any run has. Answers of further ones count for [`NO_REVISION`], so that a
/// faulty peer cannot fill the memory.
const MOST_REVISIONS: usize = 1000;
/// Index of "no revision known".
const NO_REVISION: u16 = 0;

/// A request that ended.
pub(crate) struct FinishedRequest {
    /// Number of the request in this run.
    pub(crate) number: u64,
    /// When it was due.
    pub(crate) intended: Instant,
    /// When it was sent.
    pub(crate) sent: Instant,
    /// When its outcome was known.
    pub(crate) done: Instant,
    /// HTTP status, 0 without an answer.
    pub(crate) status: u16,
    /// The revision that answered.
    pub(crate) origin: AnswerOrigin,
    /// Whether the label was right, or why there is none.
    pub(crate) outcome: Result<bool, FailureReason>,
}

/// The compact form of a request that ended. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRecord {
    pub(crate) number: u64,
    pub(crate) sent: i64,
    pub(crate) late: u32,
    pub(crate) latency: u32,
    pub(crate) status: u16,
    pub(crate) revision: u16,
    pub(crate) shielded: u16,
    pub(crate) outcome: Result<bool, FailureReason>,
}

/// Counts of one revision.
#[derive(Clone, Default)]
pub(crate) struct RevisionCounts {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) correct: u64,
    /// Answers that this revision gave in place of another.
    pub(crate) stood_in: u64,
    /// Answers that another revision gave in place of this one.
    pub(crate) shielded: u64,
    pub(crate) first_seen: Option<i64>,
    pub(crate) last_seen: Option<i64>,
    pub(crate) last_sent: Option<i64>,
    pub(crate) latency: LatencyHistogram,
}

/// Counts of feedback.
#[derive(Clone, Default)]
pub(crate) struct FeedbackCounts {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// Not sent: the answer had no prediction id, or too many labels were waiting.
    pub(crate) dropped: u64,
    pub(crate) failed: BTreeMap<FailureReason, u64>,
}

/// All counts.
#[derive(Clone, Default)]
pub(crate) struct RequestCounts {
    pub(crate) sent: u64,
    pub(crate) in_flight: u64,
    pub(crate) skipped: u64,
    pub(crate) answered: u64,
    pub(crate) correct: u64,
    pub(crate) failed: BTreeMap<FailureReason, u64>,
    pub(crate) latency: LatencyHistogram,
    /// By index of the revision in `names`.
    pub(crate) revisions: BTreeMap<u16, RevisionCounts>,
    pub(crate) feedback: FeedbackCounts,
    /// Revisions by index; [`NO_REVISION`] is the empty name.
    pub(crate) names: Vec<String>,
}

struct AccountState {
    started: i64,
    counts: RequestCounts,
    records: VecDeque<RequestRecord>,
    /// Number of records that were ever dropped from the front, so that the cursor of readers
    /// stays valid.
    dropped: u64,
}

/// The account, shared by all workers.
pub(crate) struct RequestAccount {
    /// A wall clock that never jumps: read once, then advanced by the monotonic clock.
    origin: (Timestamp, Instant),
    most_records: usize,
    state: Mutex<AccountState>,
}

impl RequestAccount {
    /// An empty account that keeps at most `most_records` single records.
    pub(crate) fn new(most_records: usize) -> Self {
        let origin = (Timestamp::now(), Instant::now());
        let state = AccountState {
            started: origin.0.as_microsecond(),
            counts: empty_counts(0),
            records: VecDeque::new(),
            dropped: 0,
        };
        Self { origin, most_records, state: Mutex::new(state) }
    }

    /// Microseconds since the Unix epoch.
    pub(crate) fn wall_micros(&self, at: Instant) -> i64 {
        let (wall, monotonic) = self.origin;
        let since =
            i64::try_from(at.saturating_duration_since(monotonic).as_micros()).unwrap_or(i64::MAX);
        wall.as_microsecond().saturating_add(since)
    }

    /// Counts a request that is about to be sent.
    pub(crate) fn begin_request(&self) {
        let mut state = self.state.lock();
        state.counts.sent += 1;
        state.counts.in_flight += 1;
    }

    /// Counts requests that were due but not sent, because too many were waiting for a connection.
    pub(crate) fn skip_requests(&self, count: u64) {
        self.state.lock().counts.skipped += count;
    }

    /// Records the outcome of a request.
    pub(crate) fn finish_request(&self, finished: &FinishedRequest) {
        let (sent, done) = (self.wall_micros(finished.sent), self.wall_micros(finished.done));
        let mut state = self.state.lock();
        let record = RequestRecord {
            number: finished.number,
            sent,
            late: elapsed_micros(finished.intended, finished.sent),
            latency: elapsed_micros(finished.intended, finished.done),
            status: finished.status,
            revision: state.counts.revision_index(finished.origin.revision.as_deref()),
            shielded: state.counts.revision_index(finished.origin.shielded.as_deref()),
            outcome: finished.outcome,
        };
        state.counts.count_record(&record, done);
        if state.records.len() >= self.most_records && state.records.pop_front().is_some() {
            state.dropped += 1;
        }
        state.records.push_back(record);
    }

    pub(crate) fn update_feedback(&self, change: impl FnOnce(&mut FeedbackCounts)) {
        change(&mut self.state.lock().counts.feedback);
    }

    /// Starts a new account. Requests in flight belong to the new one, so that the sum holds.
    pub(crate) fn reset(&self) {
        let now = self.wall_micros(Instant::now());
        let mut state = self.state.lock();
        state.started = now;
        state.counts = empty_counts(state.counts.in_flight);
        state.dropped += state.records.len() as u64;
        state.records = VecDeque::new();
    }

    /// When the account began, and all counts.
    pub(crate) fn snapshot(&self) -> (i64, RequestCounts) {
        let state = self.state.lock();
        (state.started, state.counts.clone())
    }

    /// At most `most` records from `cursor` on, their revisions' names, and the next cursor; None
    /// at the end.
    pub(crate) fn records(
        &self,
        cursor: u64,
        most: usize,
    ) -> Option<(Vec<RequestRecord>, Vec<String>, u64)> {
        let state = self.state.lock();
        let from = cursor.max(state.dropped);
        let records: Vec<_> = state
            .records
            .iter()
            .skip((from - state.dropped) as usize)
            .take(most)
            .copied()
            .collect();
        let next = from + records.len() as u64;
        (!records.is_empty()).then(|| (records, state.counts.names.clone(), next))
    }
}

fn empty_counts(in_flight: u64) -> RequestCounts {
    RequestCounts {
        sent: in_flight,
        in_flight,
        names: vec![String::new()],
        ..RequestCounts::default()
    }
}

impl RequestCounts {
    fn revision_index(&mut self, name: Option<&str>) -> u16 {
        let Some(name) = name else { return NO_REVISION };
        if let Some(index) = self.names.iter().position(|known| known == name) {
            return index as u16;
        }
        if self.names.len() >= MOST_REVISIONS {
            return NO_REVISION;
        }
        self.names.push(name.to_owned());
        (self.names.len() - 1) as u16
    }

    fn count_record(&mut self, record: &RequestRecord, done: i64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.latency.record(record.latency);
        if record.shielded != NO_REVISION {
            self.revisions.entry(record.shielded).or_default().shielded += 1;
        }
        // Without an answer no revision is recorded.
        let mut revision =
            (record.status != 0).then(|| self.revisions.entry(record.revision).or_default());
        if let Some(revision) = &mut revision {
            revision.count_request(record, done);
        }
        match record.outcome {
            Ok(correct) => {
                self.answered += 1;
                self.correct += u64::from(correct);
            }
            Err(reason) => *self.failed.entry(reason).or_default() += 1,
        }
    }

    /// Number of failed requests.
    pub(crate) fn failure_count(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl RevisionCounts {
    fn count_request(&mut self, record: &RequestRecord, done: i64) {
        match record.outcome {
            Ok(correct) => {
                self.answered += 1;
                self.correct += u64::from(correct);
            }
            Err(_) => self.failed += 1,
        }
        self.stood_in += u64::from(record.shielded != NO_REVISION);
        self.latency.record(record.latency);
        self.first_seen = Some(self.first_seen.map_or(done, |first| first.min(done)));
        self.last_seen = self.last_seen.max(Some(done));
        self.last_sent = self.last_sent.max(Some(record.sent));
    }
}

fn elapsed_micros(from: Instant, to: Instant) -> u32 {
    u32::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u32::MAX)
}
