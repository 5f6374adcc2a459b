//! The split: which of 1000 slots a request falls into. A candidate with weight `w` owns the slots `0..w`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots of the split: one for each 0.1 %.
pub const SLOTS: u32 = 1000;

/// Shares no factor with 1000, so that stepping by it visits all slots once in 1000 requests, and clients with a period (every
/// 2nd, 5th, 10th request alike) do not fall on one side. Of all such steps it spreads the slots `0..w` best: for no `w` and in no
/// run of requests is the candidate more than 3.5 requests away from its share (the test below; all steps were tried).
const STRIDE: u64 = 367;

/// A schedule of slots for requests without stickiness: any 1000 in a row visit every slot exactly once.
#[derive(Debug)]
pub struct Schedule {
    next: AtomicU64,
}

impl Schedule {
    /// A schedule that starts at the given position, so that the pods of one gateway do not round the same way.
    pub fn starting_at(position: u64) -> Self {
        Self { next: AtomicU64::new(position % u64::from(SLOTS)) }
    }

    /// The slot of the next request.
    pub fn slot(&self) -> u32 {
        let position = self.next.fetch_add(1, Ordering::Relaxed) % u64::from(SLOTS);
        // Below 1000, so the cast keeps the value.
        (position * STRIDE % u64::from(SLOTS)) as u32
    }
}

/// The slot of an entity: the same on every gateway pod, for ever, for one ModelDeployment.
pub fn sticky_slot(uid: &str, entity: &[u8]) -> u32 {
    let hash = hash(&[uid.as_bytes(), entity]);
    // Scales the 64-bit hash down to 0..1000 without the bias of a remainder.
    ((u128::from(hash) * u128::from(SLOTS)) >> 64) as u32
}

/// FNV-1a over the parts, finished by the mixer of splitmix64 because FNV alone mixes its high bits badly on short input.
///
/// Written out here, and pinned by a test, because a library that changes its hash would move every entity to another side.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| {
        state ^= u64::from(byte);
        state = state.wrapping_mul(0x0000_0100_0000_01b3);
    };
    for part in parts {
        part.iter().copied().for_each(&mut eat);
        // 0xff is in no UTF-8 text: ("ab", "c") and ("a", "bc") differ.
        eat(0xff);
    }
    mix(state)
}

/// The finishing mixer of splitmix64: every input bit reaches every output bit.
pub fn mix(mut value: u64) -> u64 {
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
            let schedule = Schedule::starting_at(start);
            let hits = (0..1000).filter(|_| schedule.slot() < weight).count();
            prop_assert_eq!(hits, weight as usize);
        }

        #[test]
        fn short_runs_are_close_to_their_share(start in 0u64..1000, weight in 0u32..=1000, length in 1u32..1000) {
            let schedule = Schedule::starting_at(start);
            let hits = (0..length).filter(|_| schedule.slot() < weight).count() as f64;
            let share = f64::from(length * weight) / 1000.0;
            prop_assert!((hits - share).abs() < 3.5, "{} of {}", hits, share);
        }

        #[test]
        fn clients_with_a_period_get_their_share(period in 2usize..=10, phase in 0usize..10, weight in 0u32..=1000) {
            let schedule = Schedule::starting_at(0);
            let slots = (0..period * 1000).map(|_| schedule.slot());
            let hits = slots.skip(phase % period).step_by(period).filter(|slot| *slot < weight).count();
            prop_assert!(hits.abs_diff(weight as usize) <= period, "{} of {}", hits, weight);
        }

        #[test]
        fn who_saw_the_candidate_still_sees_it_at_a_larger_weight(entity in ".*", small in 0u32..=1000, large in 0u32..=1000) {
            let slot = sticky_slot("uid", entity.as_bytes());
            prop_assert!(slot < SLOTS);
            let (small, large) = (small.min(large), small.max(large));
            prop_assert!(slot >= small || slot < large);
        }
    }

    #[test]
    fn sticky_slots_are_pinned() {
        let slots: Vec<u32> = ["", "a", "user-1", "user-2"].iter().map(|e| sticky_slot("uid", e.as_bytes())).collect();
        assert_eq!(slots, [256, 458, 518, 243]);
    }

    #[test]
    fn sticky_shares_are_even() {
        for weight in [1u32, 50, 250, 500, 900] {
            let hits =
                (0..100_000).filter(|n| sticky_slot("uid", format!("user-{n}").as_bytes()) < weight).count() as f64;
            let expected = f64::from(weight) * 100.0;
            // Five standard deviations of a binomial.
            let spread = 5.0 * (expected * (1.0 - f64::from(weight) / 1000.0)).sqrt();
            assert!((hits - expected).abs() < spread, "{hits} of {expected}");
        }
    }

    #[test]
    fn modeldeployments_split_their_entities_independently() {
        let both = (0..100_000)
            .filter(|n| {
                let entity = format!("user-{n}");
                sticky_slot("uid-1", entity.as_bytes()) < 500 && sticky_slot("uid-2", entity.as_bytes()) < 500
            })
            .count();
        assert!((24_000..26_000).contains(&both), "{both}");
    }
}
