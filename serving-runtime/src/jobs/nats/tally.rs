//! The queue's counters. Each process has its own message with all that it has counted, written in the same batch as what is counted, so that
//! a crash cannot come between; only its own process writes it, so that processes do not wait for each other. Sums are what people see.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use super::super::queue::QueueError;
use super::link::Link;
use super::names::Names;
use super::store::{self, Commit, Kept, Write};

/// Counters by name.
pub(super) type Counts = BTreeMap<String, i64>;

/// Where those of processes that have gone are added up.
const GONE: &str = "gone";
/// How long the message of a process that has gone stays, in case that it comes back.
const EMPTY_MS: u64 = 3_600_000;

/// The counters of this process.
#[derive(Debug)]
pub(super) struct Tally {
    process: String,
    /// Number of the last message, and what it holds; unknown at first and after a write of unknown outcome.
    last: Mutex<Option<(u64, Counts)>>,
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

impl Tally {
    pub(super) fn new() -> Self {
        Self { process: hex::encode(rand::random::<[u8; 8]>()), last: Mutex::default() }
    }

    /// Writes, and counts, together or not at all.
    pub(super) async fn commit(
        &self,
        link: &Link,
        names: &Names,
        mut writes: Vec<Write>,
        deltas: &[(&str, i64)],
    ) -> Result<Commit, QueueError> {
        let subject = names.count(&self.process);
        let mut last = self.last.lock().await;
        let (expected, mut counted) = match last.take() {
            Some(known) => known,
            None => match store::last(link, &subject).await? {
                Some(kept) => (kept.sequence, counts(&kept)),
                None => (0, Counts::new()),
            },
        };
        for (name, n) in deltas {
            let sum = counted.entry((*name).to_owned()).or_default();
            *sum = sum.saturating_add(*n);
        }
        writes.push(write(subject, &counted, expected));
        let done = store::commit(&link.client, writes).await?;
        if let Commit::Done(sequence) = done {
            *last = Some((sequence, counted));
        }
        Ok(done)
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
