//! Forms batches: selects the queued requests that run together. Pure; the clock is passed in.
//!
//! There is no batching window: waiting 2 ms costs small models most of their throughput. Taking
//! the requests that are already queued costs nothing on an idle server and merges more requests
//! the busier the server is.

use std::collections::VecDeque;
use std::time::Instant;

/// Number of priority levels; a request without a level has the middle one.
pub const PRIORITY_LEVELS: u64 = 3;

/// Priority of a queued request: lower values are served first, requests of equal priority in order
/// of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestPriority(u8);

impl Default for RequestPriority {
    fn default() -> Self {
        Self(2)
    }
}

impl RequestPriority {
    /// The priority of a level: 1 (first) to [`PRIORITY_LEVELS`] (last), or 0 for the default.
    pub fn from_level(level: u64) -> Option<Self> {
        match level {
            0 => Some(Self::default()),
            1..=PRIORITY_LEVELS => u8::try_from(level).ok().map(Self),
            _ => None,
        }
    }
}

/// The index at which to insert a request of `priority` into a queue ordered by priority.
pub fn insertion_index<T>(
    queue: &VecDeque<T>,
    priority: RequestPriority,
    of: impl Fn(&T) -> RequestPriority,
) -> usize {
    queue.partition_point(|waiting| of(waiting) <= priority)
}

/// The properties of a queued request that batching depends on.
pub trait BatchItem {
    /// Whether `other` may run in the same batch as this request.
    fn can_merge_with(&self, other: &Self) -> bool;
    /// Number of rows along the batch axis.
    fn rows(&self) -> usize;
    /// The time after which the answer is useless.
    fn deadline(&self) -> Instant;
    /// Whether the client has left and no longer waits for the answer.
    fn is_abandoned(&self) -> bool;
}

/// The outcome of [`form_batch`].
#[derive(Debug)]
pub struct FormedBatch<T> {
    /// Requests to run together, in order of arrival. Empty when all queued requests were dropped.
    pub batch: Vec<T>,
    /// Requests removed from the queue unanswered, because their deadline passed or their client
    /// left.
    pub dropped: Vec<T>,
}

/// Removes the next batch from `queue`.
///
/// The first live request (the oldest of the highest priority) always leads, so no request starves
/// behind others of its priority. Later requests join when they can be merged with it and fit; the
/// first one that can be merged but does not fit closes the batch, so that requests of one kind
/// stay in order.
pub fn form_batch<T: BatchItem>(
    queue: &mut VecDeque<T>,
    max_rows: usize,
    now: Instant,
) -> FormedBatch<T> {
    let mut formed = FormedBatch { batch: Vec::new(), dropped: Vec::new() };
    let lead = loop {
        let Some(next) = queue.pop_front() else { return formed };
        if next.is_abandoned() || next.deadline() <= now {
            formed.dropped.push(next);
        } else {
            break next;
        }
    };
    let mut rows = lead.rows();
    let mut at = 0;
    while rows < max_rows {
        let Some(next) = queue.get(at) else { break };
        if next.is_abandoned() || next.deadline() <= now {
            formed.dropped.extend(queue.remove(at));
        } else if !lead.can_merge_with(next) {
            at += 1;
        } else if rows + next.rows() > max_rows {
            break;
        } else {
            rows += next.rows();
            formed.batch.extend(queue.remove(at));
        }
    }
    formed.batch.insert(0, lead);
    formed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Fake {
        id: usize,
        key: Option<u8>,
        rows: usize,
        deadline: Instant,
        abandoned: bool,
    }

    impl BatchItem for Fake {
        fn can_merge_with(&self, other: &Self) -> bool {
            self.key.is_some() && self.key == other.key
        }
        fn rows(&self) -> usize {
            self.rows
        }
        fn deadline(&self) -> Instant {
            self.deadline
        }
        fn is_abandoned(&self) -> bool {
            self.abandoned
        }
    }

    fn queue(now: Instant, items: &[(Option<u8>, usize, bool, bool)]) -> VecDeque<Fake> {
        items
            .iter()
            .enumerate()
            .map(|(id, &(key, rows, expired, abandoned))| {
                let deadline = if expired { now } else { now + Duration::from_secs(1) };
                Fake { id, key, rows, deadline, abandoned }
            })
            .collect()
    }

    fn ids(v: &[Fake]) -> Vec<usize> {
        v.iter().map(|f| f.id).collect()
    }

    #[test]
    fn merges_equal_keys_past_others_and_keeps_order() {
        let now = Instant::now();
        let mut q = queue(
            now,
            &[
                (Some(1), 1, false, false),
                (Some(2), 1, false, false),
                (Some(1), 2, false, false),
                (None, 1, false, false),
            ],
        );
        let formed = form_batch(&mut q, 32, now);
        assert_eq!(ids(&formed.batch), [0, 2]);
        assert_eq!(q.iter().map(|f| f.id).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn higher_priorities_go_before_and_equal_ones_keep_their_order() {
        let mut q = VecDeque::new();
        for (id, level) in [0, 3, 1, 2, 1, 0].into_iter().enumerate() {
            let priority = RequestPriority::from_level(level).unwrap();
            q.insert(insertion_index(&q, priority, |(_, p)| *p), (id, priority));
        }
        assert_eq!(q.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 4, 0, 3, 5, 1]);
        assert_eq!(RequestPriority::from_level(PRIORITY_LEVELS + 1), None);
    }

    #[test]
    fn drops_the_expired_and_the_abandoned() {
        let now = Instant::now();
        let mut q = queue(
            now,
            &[
                (Some(1), 1, true, false),
                (Some(1), 1, false, true),
                (Some(1), 1, false, false),
                (Some(1), 1, true, false),
            ],
        );
        let formed = form_batch(&mut q, 32, now);
        assert_eq!(ids(&formed.batch), [2]);
        assert_eq!(ids(&formed.dropped), [0, 1, 3]);
        assert!(q.is_empty());
    }

    #[test]
    fn a_large_request_runs_alone_and_none_overtakes_its_equal() {
        let now = Instant::now();
        let mut q = queue(now, &[(Some(1), 100, false, false), (Some(1), 1, false, false)]);
        assert_eq!(ids(&form_batch(&mut q, 32, now).batch), [0]);
        let mut q = queue(
            now,
            &[(Some(1), 1, false, false), (Some(1), 32, false, false), (Some(1), 1, false, false)],
        );
        assert_eq!(ids(&form_batch(&mut q, 32, now).batch), [0]);
    }

    proptest! {
        #[test]
        fn every_request_leaves_exactly_once(
            items in proptest::collection::vec(
                (proptest::option::of(0u8..3), 1usize..40, proptest::bool::weighted(0.2), proptest::bool::weighted(0.2)), 0..60),
            max in 1usize..40,
        ) {
            let now = Instant::now();
            let mut q = queue(now, &items);
            let mut seen = Vec::new();
            while !q.is_empty() {
                let oldest_live = q.iter().find(|f| !f.abandoned && f.deadline > now).map(|f| f.id);
                let formed = form_batch(&mut q, max, now);
                prop_assert_eq!(formed.batch.first().map(|f| f.id), oldest_live);
                prop_assert!(formed.batch.is_sorted_by_key(|f| f.id));
                prop_assert!(formed.batch.iter().all(|f| !f.abandoned && f.deadline > now));
                prop_assert!(formed.dropped.iter().all(|f| f.abandoned || f.deadline <= now));
                if formed.batch.len() > 1 {
                    prop_assert!(formed.batch.iter().map(|f| f.rows).sum::<usize>() <= max);
                    prop_assert!(formed.batch.iter().all(|f| f.key.is_some() && f.key == formed.batch[0].key));
                }
                seen.extend(ids(&formed.batch));
                seen.extend(ids(&formed.dropped));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..items.len()).collect::<Vec<_>>());
        }
    }
}
