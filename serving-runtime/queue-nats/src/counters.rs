//! The queue's counters. Each process has its own message with all its counts. It is written in the
//! same batch as the counted change, so that a crash cannot separate them, and only by its own
//! process, so that processes do not wait for each other. Clients see the sums.

use std::collections::BTreeMap;
use std::time::Duration;

use slipway_chassis::backoff::{Backoff, Jitter};
use slipway_runtime_queue::queue::QueueError;
use tokio::sync::Mutex;
use tokio::sync::oneshot::error::TryRecvError;

use crate::batcher::{PendingStep, WriteBatcher};
use crate::connection::JetStreamConnection;
use crate::errors::contention_error;
use crate::limits::MAX_ATTEMPTS;
use crate::store::{self, CommitOutcome, StoredMessage, SubjectWrite, WriteResponse};
use crate::subjects::QueueSubjects;

pub(crate) type CounterTotals = BTreeMap<String, i64>;

/// The name under which the counters of departed processes are summed.
const DEPARTED_PROCESS: &str = "gone";
/// How long the message of a departed process is kept, in case the process returns.
const EMPTY_COUNTERS_TTL_MS: u64 = 3_600_000;

/// Waits between attempts at what is only counted.
const CONFLICT_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(10),
    max: Duration::from_millis(500),
    jitter: Jitter::Full,
};

#[derive(Debug)]
pub(crate) struct CounterLedger {
    process: String,
    /// Sequence number and content of the last message; unknown at first and after a write of
    /// unknown outcome. The holder of the lock writes.
    last: Mutex<Option<(u64, CounterTotals)>>,
    batcher: WriteBatcher,
}

fn parse_counters(kept: &StoredMessage) -> CounterTotals {
    serde_json::from_slice(&kept.payload).unwrap_or_default()
}

fn add_totals(to: &mut CounterTotals, more: &CounterTotals) {
    for (name, n) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
}

fn counters_write(subject: String, counts: &CounterTotals, expected: u64) -> SubjectWrite {
    // A map of numbers can always be written as JSON.
    SubjectWrite::new(subject, serde_json::to_vec(counts).unwrap_or_default())
        .expect_sequence(expected)
}

/// Number of attempts that ended in a conflict.
#[derive(Debug, Default)]
struct ConflictRetry(u32);

impl ConflictRetry {
    /// Waits before the next attempt. The number of attempts is limited, so that a server that
    /// always reports a conflict is not flooded.
    async fn pause(&mut self) -> Result<(), QueueError> {
        self.0 += 1;
        if self.0 as usize >= MAX_ATTEMPTS {
            return contention_error();
        }
        tokio::time::sleep(CONFLICT_BACKOFF.random_delay(self.0)).await;
        Ok(())
    }
}

impl CounterLedger {
    pub(crate) fn new() -> Self {
        Self {
            process: hex::encode(rand::random::<[u8; 8]>()),
            last: Mutex::default(),
            batcher: WriteBatcher::default(),
        }
    }

    /// Increments counters without another write. A conflict then concerns this process's own
    /// counters after a write of unknown outcome, and is transient.
    pub(crate) async fn increment(
        &self,
        link: &JetStreamConnection,
        names: &QueueSubjects,
        deltas: &[(&'static str, i64)],
    ) -> Result<(), QueueError> {
        let mut conflicts = ConflictRetry::default();
        while self.commit(link, names, Vec::new(), deltas).await? == CommitOutcome::Conflict {
            conflicts.pause().await?;
        }
        Ok(())
    }

    /// Writes and counts atomically.
    ///
    /// Steps that arrive while others are being written wait and are then written together: the
    /// cost of a batch is far larger than that of its messages.
    pub(crate) async fn commit(
        &self,
        link: &JetStreamConnection,
        names: &QueueSubjects,
        writes: Vec<SubjectWrite>,
        deltas: &[(&'static str, i64)],
    ) -> Result<CommitOutcome, QueueError> {
        let mut heard = self.batcher.submit(writes, deltas);
        let mut last = self.last.lock().await;
        loop {
            match heard.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Closed) => {
                    return Err(QueueError::Unavailable("who wrote it broke off".into()));
                }
                Err(TryRecvError::Empty) => {
                    self.write_steps(link, names, &mut last, self.batcher.next_batch()).await
                }
            }
        }
    }

    /// Writes some steps together and sends their outcomes. On a conflict or a refusal it splits
    /// them in halves, so that the step that causes it does not fail the others.
    async fn write_steps(
        &self,
        link: &JetStreamConnection,
        names: &QueueSubjects,
        last: &mut Option<(u64, CounterTotals)>,
        steps: Vec<PendingStep>,
    ) {
        let mut left = vec![steps];
        while let Some(mut steps) = left.pop() {
            let verdict = self.write_together(link, names, last, &steps).await;
            if steps.len() > 1
                && matches!(verdict, Ok(WriteResponse::Conflict | WriteResponse::Refused(_)))
            {
                let second = steps.split_off(steps.len() / 2);
                left.extend([second, steps]);
            } else {
                let answer = verdict.and_then(WriteResponse::into_outcome);
                steps.into_iter().for_each(|step| step.reply(answer.clone()));
            }
        }
    }

    async fn write_together(
        &self,
        link: &JetStreamConnection,
        names: &QueueSubjects,
        last: &mut Option<(u64, CounterTotals)>,
        steps: &[PendingStep],
    ) -> Result<WriteResponse, QueueError> {
        let subject = names.counter(&self.process);
        let (expected, mut counted) = match last.take() {
            Some(known) => known,
            None => match store::last_message(link, &subject).await? {
                Some(kept) => (kept.sequence, parse_counters(&kept)),
                None => (0, CounterTotals::new()),
            },
        };
        for (name, n) in steps.iter().flat_map(|step| &step.deltas) {
            let sum = counted.entry((*name).to_owned()).or_default();
            *sum = sum.saturating_add(*n);
        }
        let mut writes: Vec<SubjectWrite> =
            steps.iter().flat_map(|step| &step.writes).cloned().collect();
        writes.push(counters_write(subject, &counted, expected));
        let verdict = store::write_batch(&link.client, writes).await?;
        if let WriteResponse::Committed(sequence) = verdict {
            *last = Some((sequence, counted));
        }
        Ok(verdict)
    }

    /// The sums over all processes.
    pub(crate) async fn totals(
        link: &JetStreamConnection,
        names: &QueueSubjects,
    ) -> Result<CounterTotals, QueueError> {
        let mut sums = CounterTotals::new();
        for (_, kept) in store::last_messages(link, &names.stream, &names.counters()).await? {
            add_totals(&mut sums, &parse_counters(&kept));
        }
        Ok(sums)
    }

    /// Moves the counters of this process, and of processes that have been silent for `silent`
    /// milliseconds, to the sum of departed processes.
    pub(crate) async fn fold_departed(
        &self,
        link: &JetStreamConnection,
        names: &QueueSubjects,
        now: u64,
        silent: u64,
    ) -> Result<(), QueueError> {
        // The lock keeps this process from counting meanwhile.
        let mut last = self.last.lock().await;
        let (own, gone) = (names.counter(&self.process), names.counter(DEPARTED_PROCESS));
        for (subject, seen) in store::last_messages(link, &names.stream, &names.counters()).await? {
            let over = subject == own || now.saturating_sub(seen.written_at) > silent;
            if subject == gone || !over || parse_counters(&seen).is_empty() {
                continue;
            }
            if subject == own {
                *last = None;
            }
            let kept = store::last_message(link, &gone).await?;
            let mut sum = kept.as_ref().map(parse_counters).unwrap_or_default();
            add_totals(&mut sum, &parse_counters(&seen));
            let all = counters_write(gone.clone(), &sum, kept.map_or(0, |kept| kept.sequence));
            let empty = counters_write(subject, &CounterTotals::new(), seen.sequence)
                .with_ttl_millis(EMPTY_COUNTERS_TTL_MS);
            // On a conflict another process has moved them, or their process has returned; the next
            // call tries again.
            store::commit_writes(&link.client, vec![all, empty]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_only_counted_is_tried_again_with_pauses_and_an_end() {
        let (begun, mut conflicts, mut tries) =
            (tokio::time::Instant::now(), ConflictRetry::default(), 1);
        while conflicts.pause().await.is_ok() {
            tries += 1;
        }
        assert_eq!(tries, MAX_ATTEMPTS);
        assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
