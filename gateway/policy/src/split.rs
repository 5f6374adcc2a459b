//! The split: which of 1000 slots a request falls into. A candidate with weight `w` owns the slots
//! `0..w`.

use std::sync::atomic::{AtomicU64, Ordering};

use ring::hmac;
use slipway_prediction_id::MasterKey;

/// Slots of the split: one per 0.1 %.
pub const SLOTS: u32 = 1000;

/// Coprime to 1000, so that stepping by it visits all slots once in 1000 requests, and periodic
/// traffic (every 2nd, 5th, 10th request alike) does not end up on one side. Of all such steps it
/// spreads the slots `0..w` best: for no `w` and in no run of requests is the candidate more than
/// 3.5 requests away from its share (see the test below; all steps were tried).
const STRIDE: u64 = 367;

/// A schedule of slots for requests without stickiness: any 1000 consecutive ones visit every slot
/// exactly once.
#[derive(Debug)]
pub struct SlotSchedule {
    next: AtomicU64,
}

impl SlotSchedule {
    /// A schedule that starts at the given position, so that the pods of one gateway do not round
    /// in the same way.
    pub fn starting_at(position: u64) -> Self {
        Self { next: AtomicU64::new(position % u64::from(SLOTS)) }
    }

    /// The slot of the next request.
    pub fn next_slot(&self) -> u32 {
        let position = self.next.fetch_add(1, Ordering::Relaxed) % u64::from(SLOTS);
        // Below 1000, so the cast keeps the value.
        (position * STRIDE % u64::from(SLOTS)) as u32
    }
}

/// The slots of entities in one rollout: the same on every gateway pod, and unpredictable without
/// the key of the namespace, so that no client can choose the revision under test, or get it in
/// every rollout.
#[derive(Debug, Clone)]
pub struct StickySlots(StickinessKey);

#[derive(Debug, Clone)]
enum StickinessKey {
    Key(hmac::Key),
    /// Without a key: by the UID, which every reader of the ModelDeployment can see.
    Uid(String),
}

impl StickySlots {
    /// Slots for a rollout of the ModelDeployment with a UID.
    pub fn new(master: Option<&MasterKey>, uid: &str, rollout: &str) -> Self {
        let key = |master: &MasterKey| master.derive("stickiness v1", &format!("{uid}/{rollout}"));
        Self(match master.map(key) {
            Some(key) => StickinessKey::Key(hmac::Key::new(hmac::HMAC_SHA256, &key)),
            None => StickinessKey::Uid(uid.to_owned()),
        })
    }

    /// The slot of an entity.
    pub fn slot(&self, entity: &[u8]) -> u32 {
        let hash = match &self.0 {
            StickinessKey::Key(key) => {
                let tag = hmac::sign(key, entity);
                tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
            }
            StickinessKey::Uid(uid) => hash_parts(&[uid.as_bytes(), entity]),
        };
        // Scales the 64-bit hash down to 0..1000 without the bias of a remainder.
        ((u128::from(hash) * u128::from(SLOTS)) >> 64) as u32
    }
}

/// FNV-1a over the parts, finished by the mixer of splitmix64 because FNV alone mixes its high bits
/// badly on short input.
///
/// Written out here, and pinned by a test, because a library that changes its hash would move every
/// entity to another side; and so would a change to a hash that is specified, such as XXH3.
pub fn hash_parts(parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| {
        state ^= u64::from(byte);
        state = state.wrapping_mul(0x0000_0100_0000_01b3);
    };
    for part in parts {
        part.iter().copied().for_each(&mut eat);
        // 0xff occurs in no UTF-8 text: ("ab", "c") and ("a", "bc") differ.
        eat(0xff);
    }
    mix_bits(state)
}

/// The finishing mixer of splitmix64: every input bit affects every output bit.
pub fn mix_bits(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_thousand_in_a_row_are_exact(start in 0u64..10_000, weight in 0u32..=1000) {
            let schedule = SlotSchedule::starting_at(start);
            let hits = (0..1000).filter(|_| schedule.next_slot() < weight).count();
            prop_assert_eq!(hits, weight as usize);
        }

        #[test]
        fn short_runs_are_close_to_their_share(start in 0u64..1000, weight in 0u32..=1000, length in 1u32..1000) {
            let schedule = SlotSchedule::starting_at(start);
            let hits = (0..length).filter(|_| schedule.next_slot() < weight).count() as f64;
            let share = f64::from(length * weight) / 1000.0;
            prop_assert!((hits - share).abs() < 3.5, "{} of {}", hits, share);
        }

        #[test]
        fn clients_with_a_period_get_their_share(period in 2usize..=10, phase in 0usize..10, weight in 0u32..=1000) {
            let schedule = SlotSchedule::starting_at(0);
            let slots = (0..period * 1000).map(|_| schedule.next_slot());
            let hits = slots.skip(phase % period).step_by(period).filter(|slot| *slot < weight).count();
            prop_assert!(hits.abs_diff(weight as usize) <= period, "{} of {}", hits, weight);
        }

        #[test]
        fn who_saw_the_candidate_still_sees_it_at_a_larger_weight(entity in ".*", small in 0u32..=1000, large in 0u32..=1000) {
            let slot = keyed("uid", "1").slot(entity.as_bytes());
            prop_assert!(slot < SLOTS);
            let (small, large) = (small.min(large), small.max(large));
            prop_assert!(slot >= small || slot < large);
        }
    }

    fn keyed(uid: &str, rollout: &str) -> StickySlots {
        StickySlots::new(Some(&MasterKey::new(vec![7; 32])), uid, rollout)
    }

    #[test]
    fn sticky_slots_are_pinned() {
        let of = |stickiness: StickySlots| {
            ["", "a", "user-1", "user-2"].map(|entity| stickiness.slot(entity.as_bytes()))
        };
        assert_eq!(of(StickySlots::new(None, "uid", "1")), [256, 458, 518, 243]);
        assert_eq!(of(keyed("uid", "1")), of(keyed("uid", "1")));
    }

    #[test]
    fn sticky_shares_are_even() {
        let stickiness = keyed("uid", "1");
        for weight in [1u32, 50, 250, 500, 900] {
            let hits = (0..100_000)
                .filter(|n| stickiness.slot(format!("user-{n}").as_bytes()) < weight)
                .count() as f64;
            let expected = f64::from(weight) * 100.0;
            // Five standard deviations of a binomial distribution.
            let spread = 5.0 * (expected * (1.0 - f64::from(weight) / 1000.0)).sqrt();
            assert!((hits - expected).abs() < spread, "{hits} of {expected}");
        }
    }

    /// An entity that gets one candidate does not get every one, and its slot for one
    /// ModelDeployment reveals nothing about another.
    #[test]
    fn rollouts_and_modeldeployments_split_their_entities_independently() {
        for (one, other) in [
            (keyed("uid-1", "1"), keyed("uid-2", "1")),
            (keyed("uid-1", "1"), keyed("uid-1", "2")),
            (
                keyed("uid-1", "1"),
                StickySlots::new(Some(&MasterKey::new(vec![8; 32])), "uid-1", "1"),
            ),
            (StickySlots::new(None, "uid-1", "1"), StickySlots::new(None, "uid-2", "1")),
        ] {
            let both = |n: &u32| {
                let entity = format!("user-{n}");
                one.slot(entity.as_bytes()) < 500 && other.slot(entity.as_bytes()) < 500
            };
            let both = (0..40_000).filter(both).count();
            assert!((9_600..10_400).contains(&both), "{both}");
        }
    }
}
