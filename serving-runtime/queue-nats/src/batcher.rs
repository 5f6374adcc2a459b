//! Collects steps that are written together.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use slipway_runtime_queue::queue::QueueError;
use tokio::sync::oneshot;

use crate::store::{CommitOutcome, SubjectWrite};

/// Largest number of steps in one batch: the server accepts a thousand messages, and a step has at
/// most five.
const MAX_BATCH_STEPS: usize = 64;
/// Largest size of one batch in bytes, unless a single step is larger.
const MAX_BATCH_BYTES: usize = 4 << 20;

type CommitResult = Result<CommitOutcome, QueueError>;

/// A step: its writes, its counter increments, and the channel for its outcome.
#[derive(Debug)]
pub(crate) struct PendingStep {
    pub(crate) writes: Vec<SubjectWrite>,
    pub(crate) deltas: Vec<(&'static str, i64)>,
    reply: oneshot::Sender<CommitResult>,
}

impl PendingStep {
    /// Sends the outcome; the receiver may be gone.
    pub(crate) fn reply(self, answer: CommitResult) {
        let _ = self.reply.send(answer);
    }

    fn size(&self) -> usize {
        self.writes.iter().map(SubjectWrite::size).sum()
    }
}

/// Waiting steps in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct WriteBatcher(Mutex<VecDeque<PendingStep>>);

impl WriteBatcher {
    /// Queues a step; returns the receiver of its outcome.
    pub(crate) fn submit(
        &self,
        writes: Vec<SubjectWrite>,
        deltas: &[(&'static str, i64)],
    ) -> oneshot::Receiver<CommitResult> {
        let (told, heard) = oneshot::channel();
        self.0.lock().push_back(PendingStep { writes, deltas: deltas.to_vec(), reply: told });
        heard
    }

    /// The next steps that can be written together: the oldest, and others that fit. No two of them
    /// write to the same subject: the later one was computed from the state before the first, so it
    /// must be written separately and fail with a conflict.
    pub(crate) fn next_batch(&self) -> Vec<PendingStep> {
        let mut waiting = self.0.lock();
        let (mut group, mut later) = (Vec::new(), VecDeque::new());
        let (mut subjects, mut bytes) = (HashSet::new(), 0);
        for step in waiting.drain(..).filter(|step| !step.reply.is_closed()) {
            let size = step.size();
            let alone = step.writes.iter().all(|write| !subjects.contains(write.subject()));
            if group.is_empty()
                || (group.len() < MAX_BATCH_STEPS && bytes + size <= MAX_BATCH_BYTES && alone)
            {
                subjects.extend(step.writes.iter().map(|write| write.subject().to_owned()));
                bytes += size;
                group.push(step);
            } else {
                later.push_back(step);
            }
        }
        *waiting = later;
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(subject: &str, bytes: usize) -> SubjectWrite {
        SubjectWrite::new(subject.into(), vec![0; bytes])
    }

    fn subjects(group: &[PendingStep]) -> Vec<Vec<&str>> {
        group.iter().map(|step| step.writes.iter().map(SubjectWrite::subject).collect()).collect()
    }

    #[test]
    fn steps_of_different_subjects_go_together() {
        let group = WriteBatcher::default();
        let heard = ["a", "b", "a", "c"].map(|subject| group.submit(vec![write(subject, 1)], &[]));
        assert_eq!(subjects(&group.next_batch()), [["a"], ["b"], ["c"]]);
        assert_eq!(subjects(&group.next_batch()), [["a"]]);
        assert!(group.next_batch().is_empty());
        drop(heard);
    }

    #[test]
    fn who_has_left_is_not_written() {
        let group = WriteBatcher::default();
        drop(group.submit(vec![write("a", 1)], &[]));
        let _heard = group.submit(vec![write("b", 1)], &[("n", 1)]);
        assert_eq!(subjects(&group.next_batch()), [["b"]]);
    }

    #[test]
    fn a_group_is_bounded_and_a_large_step_goes_alone() {
        let group = WriteBatcher::default();
        let many: Vec<_> = (0..MAX_BATCH_STEPS + 5)
            .map(|n| group.submit(vec![write(&format!("s{n}"), 1)], &[]))
            .collect();
        assert_eq!((group.next_batch().len(), group.next_batch().len()), (MAX_BATCH_STEPS, 5));
        let large = [MAX_BATCH_BYTES + 1, 1, MAX_BATCH_BYTES, 1]
            .map(|bytes| group.submit(vec![write(&format!("l{bytes}"), bytes)], &[]));
        let sizes: Vec<usize> =
            std::iter::repeat_with(|| group.next_batch().len()).take_while(|n| *n > 0).collect();
        assert_eq!(sizes, [1, 1, 1, 1]);
        drop((many, large));
    }
}
