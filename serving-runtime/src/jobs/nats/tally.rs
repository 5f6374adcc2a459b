//! The queue's counters. Each process has its own message with all that it has counted, written in the same batch as what is counted, so that
//! a crash cannot come between; only its own process writes it, so that processes do not wait for each other. Sums are what people see.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::backoff::Backoff;
use super::super::queue::QueueError;
use super::group::{Group, Waiting};
use super::link::Link;
use super::names::Names;
use super::store::{self, Commit, Kept, Verdict, Write};
use super::{TRIES, contended};

/// Counters by name.
pub(super) type Counts = BTreeMap<String, i64>;

/// Where those of processes that have gone are added up.
const GONE: &str = "gone";
/// How long the message of a process that has gone stays, in case that it comes back.
const EMPTY_MS: u64 = 3_600_000;

/// Waits between attempts at what is only counted.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(500) };

/// The counters of this process.
#[derive(Debug)]
pub(super) struct Tally {
    process: String,
    /// Number of the last message, and what it holds; unknown at first and after a write of unknown outcome. Whoever has the lock writes.
    last: Mutex<Option<(u64, Counts)>>,
    group: Group,
}

fn counts(kept: &Kept) -> Counts {
    serde_json::from_slice(&kept.payload).unwrap_or_default()
}

fn add(to: &mut Counts, more: &Counts) {
    for (name, n) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
}

fn write(subject: String, counts: &Counts, expected: u64) -> Write {
    // A map of numbers is always JSON.
    Write::new(subject, serde_json::to_vec(counts).unwrap_or_default()).expect(expected)
}

/// Attempts that met a conflict.
#[derive(Debug, Default)]
struct Conflicts(u32);

impl Conflicts {
    /// Waits before the next attempt, of which there is an end: a server that says so for ever gets no storm for an answer.
    async fn pause(&mut self) -> Result<(), QueueError> {
        self.0 += 1;
        if self.0 as usize >= TRIES {
            return contended();
        }
        tokio::time::sleep(AGAIN.jittered(self.0)).await;
        Ok(())
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { process: hex::encode(rand::random::<[u8; 8]>()), last: Mutex::default(), group: Group::default() }
    }

    /// Counts, and writes nothing else. A conflict is then about our own counters, after a write of unknown outcome, and passes.
    pub(super) async fn count(
        &self,
        link: &Link,
        names: &Names,
        deltas: &[(&'static str, i64)],
    ) -> Result<(), QueueError> {
        let mut conflicts = Conflicts::default();
        while self.commit(link, names, Vec::new(), deltas).await? == Commit::Conflict {
            conflicts.pause().await?;
        }
        Ok(())
    }

    /// Writes, and counts, together or not at all.
    ///
    /// Steps that come while others are being written wait, and are written together then: a batch costs the server far more than what is in it.
    pub(super) async fn commit(
        &self,
        link: &Link,
        names: &Names,
        writes: Vec<Write>,
        deltas: &[(&'static str, i64)],
    ) -> Result<Commit, QueueError> {
        let mut heard = self.group.wait(writes, deltas);
        let mut last = self.last.lock().await;
        loop {
            match heard.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Closed) => return Err(QueueError::Unavailable("who wrote it broke off".into())),
                Err(TryRecvError::Empty) => self.write(link, names, &mut last, self.group.next()).await,
            }
        }
    }

    /// Writes some steps together, and tells them; by halves when one of them stands in the way of the others.
    async fn write(&self, link: &Link, names: &Names, last: &mut Option<(u64, Counts)>, steps: Vec<Waiting>) {
        let mut left = vec![steps];
        while let Some(mut steps) = left.pop() {
            let verdict = self.together(link, names, last, &steps).await;
            if steps.len() > 1 && matches!(verdict, Ok(Verdict::Conflict | Verdict::Refused(_))) {
                let second = steps.split_off(steps.len() / 2);
                left.extend([second, steps]);
            } else {
                let answer = verdict.and_then(Verdict::commit);
                steps.into_iter().for_each(|step| step.tell(answer.clone()));
            }
        }
    }

    async fn together(
        &self,
        link: &Link,
        names: &Names,
        last: &mut Option<(u64, Counts)>,
        steps: &[Waiting],
    ) -> Result<Verdict, QueueError> {
        let subject = names.count(&self.process);
        let (expected, mut counted) = match last.take() {
            Some(known) => known,
            None => match store::last(link, &subject).await? {
                Some(kept) => (kept.sequence, counts(&kept)),
                None => (0, Counts::new()),
            },
        };
        for (name, n) in steps.iter().flat_map(|step| &step.deltas) {
            let sum = counted.entry((*name).to_owned()).or_default();
            *sum = sum.saturating_add(*n);
        }
        let mut writes: Vec<Write> = steps.iter().flat_map(|step| &step.writes).cloned().collect();
        writes.push(write(subject, &counted, expected));
        let verdict = store::write(&link.client, writes).await?;
        if let Verdict::Done(sequence) = verdict {
            *last = Some((sequence, counted));
        }
        Ok(verdict)
    }

    /// The sums over all processes.
    pub(super) async fn sums(link: &Link, names: &Names) -> Result<Counts, QueueError> {
        let mut sums = Counts::new();
        for (_, kept) in store::all_last(link, &names.stream, &names.counts()).await? {
            add(&mut sums, &counts(&kept));
        }
        Ok(sums)
    }

    /// Adds the counters of this process, and of those that have been silent for so many milliseconds, to those of all that have gone.
    pub(super) async fn fold(&self, link: &Link, names: &Names, now: u64, silent: u64) -> Result<(), QueueError> {
        // Nothing is counted by this process meanwhile.
        let mut last = self.last.lock().await;
        let (own, gone) = (names.count(&self.process), names.count(GONE));
        for (subject, seen) in store::all_last(link, &names.stream, &names.counts()).await? {
            let over = subject == own || now.saturating_sub(seen.written) > silent;
            if subject == gone || !over || counts(&seen).is_empty() {
                continue;
            }
            if subject == own {
                *last = None;
            }
            let kept = store::last(link, &gone).await?;
            let mut sum = kept.as_ref().map(counts).unwrap_or_default();
            add(&mut sum, &counts(&seen));
            let all = write(gone.clone(), &sum, kept.map_or(0, |kept| kept.sequence));
            let empty = write(subject, &Counts::new(), seen.sequence).forget_after(EMPTY_MS);
            // Whoever was faster has done it, or has come back; another time.
            store::commit(&link.client, vec![all, empty]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_only_counted_is_tried_again_with_pauses_and_an_end() {
        let (begun, mut conflicts, mut tries) = (tokio::time::Instant::now(), Conflicts::default(), 1);
        while conflicts.pause().await.is_ok() {
            tries += 1;
        }
        assert_eq!(tries, TRIES);
        assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
