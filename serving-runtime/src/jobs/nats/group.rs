//! Steps that wait to be written together.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::super::queue::QueueError;
use super::store::{Commit, Write};

/// Steps of one batch, which the server takes a thousand messages of; a step has at most five.
const MOST: usize = 64;
/// Bytes of one batch, unless a single step has more.
const MOST_BYTES: usize = 4 << 20;

type Answer = Result<Commit, QueueError>;

/// A step: what it writes, what it counts, and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) writes: Vec<Write>,
    pub(super) deltas: Vec<(&'static str, i64)>,
    told: oneshot::Sender<Answer>,
}

impl Waiting {
    /// Tells what became of it; nobody may be waiting any more.
    pub(super) fn tell(self, answer: Answer) {
        let _ = self.told.send(answer);
    }

    fn size(&self) -> usize {
        self.writes.iter().map(Write::size).sum()
    }
}

/// Steps in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Group(Mutex<VecDeque<Waiting>>);

impl Group {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // A queue is whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a step. What comes back is told what became of it.
    pub(super) fn wait(&self, writes: Vec<Write>, deltas: &[(&'static str, i64)]) -> oneshot::Receiver<Answer> {
        let (told, heard) = oneshot::channel();
        self.waiting().push_back(Waiting { writes, deltas: deltas.to_vec(), told });
        heard
    }

    /// The next steps that can be written together: the oldest, and what fits beside it. No two of them write to one subject: the later one
    /// has read what is going to be the past, and has to find that out.
    pub(super) fn next(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let (mut group, mut later) = (Vec::new(), VecDeque::new());
        let (mut subjects, mut bytes) = (HashSet::new(), 0);
        for step in waiting.drain(..).filter(|step| !step.told.is_closed()) {
            let size = step.size();
            let alone = step.writes.iter().all(|write| !subjects.contains(write.subject()));
            if group.is_empty() || (group.len() < MOST && bytes + size <= MOST_BYTES && alone) {
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

    fn write(subject: &str, bytes: usize) -> Write {
        Write::new(subject.into(), vec![0; bytes])
    }

    fn subjects(group: &[Waiting]) -> Vec<Vec<&str>> {
        group.iter().map(|step| step.writes.iter().map(Write::subject).collect()).collect()
    }

    #[test]
    fn steps_of_different_subjects_go_together() {
        let group = Group::default();
        let heard = ["a", "b", "a", "c"].map(|subject| group.wait(vec![write(subject, 1)], &[]));
        assert_eq!(subjects(&group.next()), [["a"], ["b"], ["c"]]);
        assert_eq!(subjects(&group.next()), [["a"]]);
        assert!(group.next().is_empty());
        drop(heard);
    }

    #[test]
    fn who_has_left_is_not_written() {
        let group = Group::default();
        drop(group.wait(vec![write("a", 1)], &[]));
        let _heard = group.wait(vec![write("b", 1)], &[("n", 1)]);
        assert_eq!(subjects(&group.next()), [["b"]]);
    }

    #[test]
    fn a_group_is_bounded_and_a_large_step_goes_alone() {
        let group = Group::default();
        let many: Vec<_> = (0..MOST + 5).map(|n| group.wait(vec![write(&format!("s{n}"), 1)], &[])).collect();
        assert_eq!((group.next().len(), group.next().len()), (MOST, 5));
        let large =
            [MOST_BYTES + 1, 1, MOST_BYTES, 1].map(|bytes| group.wait(vec![write(&format!("l{bytes}"), bytes)], &[]));
        let sizes: Vec<usize> = std::iter::repeat_with(|| group.next().len()).take_while(|n| *n > 0).collect();
        assert_eq!(sizes, [1, 1, 1, 1]);
        drop((many, large));
    }
}
