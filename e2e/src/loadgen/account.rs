//! The account of every request. Each one that is sent ends in exactly one outcome: `sent = answered + failed + in flight`, always.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use super::histogram::Histogram;
use super::protocol::Origin;
use super::reason::Reason;

/// More revisions than any run has; beyond it answers count as of [`NAMELESS`], so that a peer gone mad cannot fill the memory.
const MOST_REVISIONS: usize = 1000;
/// Index of "no revision known".
const NAMELESS: u16 = 0;

/// A request that ended.
pub(crate) struct Finished {
    /// Number of the request in this run.
    pub(crate) number: u64,
    /// When it should have been sent.
    pub(crate) intended: Instant,
    /// When it was sent.
    pub(crate) sent: Instant,
    /// When its outcome was known.
    pub(crate) done: Instant,
    /// HTTP status, 0 without an answer.
    pub(crate) status: u16,
    /// Who answered.
    pub(crate) origin: Origin,
    /// Whether the label was right, or why there is none.
    pub(crate) outcome: Result<bool, Reason>,
}

/// The compact form of a request that ended. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) number: u64,
    pub(crate) sent: i64,
    pub(crate) late: u32,
    pub(crate) latency: u32,
    pub(crate) status: u16,
    pub(crate) revision: u16,
    pub(crate) shielded: u16,
    pub(crate) outcome: Result<bool, Reason>,
}

/// What is known of one revision.
#[derive(Clone, Default)]
pub(crate) struct Revision {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) correct: u64,
    /// Answers given in another revision's place.
    pub(crate) stood_in: u64,
    /// Answers that another revision gave in this one's place.
    pub(crate) shielded: u64,
    pub(crate) first_seen: Option<i64>,
    pub(crate) last_seen: Option<i64>,
    pub(crate) last_sent: Option<i64>,
    pub(crate) latency: Histogram,
}

/// What became of feedback.
#[derive(Clone, Default)]
pub(crate) struct Feedback {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// Not sent: the answer had no prediction id, or too much was waiting.
    pub(crate) dropped: u64,
    pub(crate) failed: BTreeMap<Reason, u64>,
}

/// All counts.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) in_flight: u64,
    pub(crate) skipped: u64,
    pub(crate) answered: u64,
    pub(crate) correct: u64,
    pub(crate) failed: BTreeMap<Reason, u64>,
    pub(crate) latency: Histogram,
    /// By index of the revision in `names`.
    pub(crate) revisions: BTreeMap<u16, Revision>,
    pub(crate) feedback: Feedback,
    /// Revisions by index; [`NAMELESS`] is the empty name.
    pub(crate) names: Vec<String>,
}

struct State {
    started: i64,
    counts: Counts,
    records: VecDeque<Record>,
    /// How many records were ever dropped from the front: the cursor of readers survives it.
    dropped: u64,
}

/// The account, shared by all workers.
pub(crate) struct Account {
    /// A wall clock that never jumps: read once, then counted on by the monotonic clock.
    origin: (Timestamp, Instant),
    most_records: usize,
    state: Mutex<State>,
}

impl Account {
    /// An empty account that keeps at most so many single records.
    pub(crate) fn new(most_records: usize) -> Self {
        let origin = (Timestamp::now(), Instant::now());
        let state =
            State { started: origin.0.as_microsecond(), counts: empty(0), records: VecDeque::new(), dropped: 0 };
        Self { origin, most_records, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make counts wrong that were each changed under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the Unix epoch.
    pub(crate) fn wall(&self, at: Instant) -> i64 {
        let (wall, monotonic) = self.origin;
        let since = i64::try_from(at.saturating_duration_since(monotonic).as_micros()).unwrap_or(i64::MAX);
        wall.as_microsecond().saturating_add(since)
    }

    /// A request is about to be sent.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        state.counts.sent += 1;
        state.counts.in_flight += 1;
    }

    /// Requests that came due were not sent, because too many were waiting for a connection.
    pub(crate) fn skip(&self, count: u64) {
        self.lock().counts.skipped += count;
    }

    /// A request that began has ended.
    pub(crate) fn finish(&self, finished: &Finished) {
        let (sent, done) = (self.wall(finished.sent), self.wall(finished.done));
        let mut state = self.lock();
        let record = Record {
            number: finished.number,
            sent,
            late: micros(finished.intended, finished.sent),
            latency: micros(finished.intended, finished.done),
            status: finished.status,
            revision: state.counts.index(finished.origin.revision.as_deref()),
            shielded: state.counts.index(finished.origin.shielded.as_deref()),
            outcome: finished.outcome,
        };
        state.counts.count(&record, done);
        if state.records.len() >= self.most_records && state.records.pop_front().is_some() {
            state.dropped += 1;
        }
        state.records.push_back(record);
    }

    /// Changes the counts of feedback.
    pub(crate) fn feedback(&self, change: impl FnOnce(&mut Feedback)) {
        change(&mut self.lock().counts.feedback);
    }

    /// Begins a new account. What is in flight belongs to the new one, so that the sum holds.
    pub(crate) fn reset(&self) {
        let now = self.wall(Instant::now());
        let mut state = self.lock();
        state.started = now;
        state.counts = empty(state.counts.in_flight);
        state.dropped += state.records.len() as u64;
        state.records = VecDeque::new();
    }

    /// When the account began, and all counts.
    pub(crate) fn counts(&self) -> (i64, Counts) {
        let state = self.lock();
        (state.started, state.counts.clone())
    }

    /// At most `most` records from `cursor` on, their revisions' names, and the next cursor; None at the end.
    pub(crate) fn records(&self, cursor: u64, most: usize) -> Option<(Vec<Record>, Vec<String>, u64)> {
        let state = self.lock();
        let from = cursor.max(state.dropped);
        let records: Vec<_> = state.records.iter().skip((from - state.dropped) as usize).take(most).copied().collect();
        let next = from + records.len() as u64;
        (!records.is_empty()).then(|| (records, state.counts.names.clone(), next))
    }
}

fn empty(in_flight: u64) -> Counts {
    Counts { sent: in_flight, in_flight, names: vec![String::new()], ..Counts::default() }
}

impl Counts {
    fn index(&mut self, name: Option<&str>) -> u16 {
        let Some(name) = name else { return NAMELESS };
        if let Some(index) = self.names.iter().position(|known| known == name) {
            return index as u16;
        }
        if self.names.len() >= MOST_REVISIONS {
            return NAMELESS;
        }
        self.names.push(name.to_owned());
        (self.names.len() - 1) as u16
    }

    fn count(&mut self, record: &Record, done: i64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.latency.record(record.latency);
        if record.shielded != NAMELESS {
            self.revisions.entry(record.shielded).or_default().shielded += 1;
        }
        // Without an answer nobody is to be named.
        let mut revision = (record.status != 0).then(|| self.revisions.entry(record.revision).or_default());
        if let Some(revision) = &mut revision {
            revision.seen(record, done);
        }
        match record.outcome {
            Ok(correct) => {
                self.answered += 1;
                self.correct += u64::from(correct);
            }
            Err(reason) => *self.failed.entry(reason).or_default() += 1,
        }
    }

    /// All that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Revision {
    fn seen(&mut self, record: &Record, done: i64) {
        match record.outcome {
            Ok(correct) => {
                self.answered += 1;
                self.correct += u64::from(correct);
            }
            Err(_) => self.failed += 1,
        }
        self.stood_in += u64::from(record.shielded != NAMELESS);
        self.latency.record(record.latency);
        self.first_seen = Some(self.first_seen.map_or(done, |first| first.min(done)));
        self.last_seen = self.last_seen.max(Some(done));
        self.last_sent = self.last_sent.max(Some(record.sent));
    }
}

fn micros(from: Instant, to: Instant) -> u32 {
    u32::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u32::MAX)
}
