//! The shield's budget: it limits replays that do not help.
//!
//! A replay is charged when it starts and refunded when stable answered it. A candidate that alone
//! is faulty therefore never exhausts the budget (the brake limits it, and stable has capacity for
//! all traffic during a rollout), while in an outage of both arms the load on stable grows by no
//! more than the floor and the percentage.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const SLOTS: usize = 10;
const SLOT_DURATION: Duration = Duration::from_secs(1);

/// A budget over the last ten seconds.
#[derive(Debug)]
pub struct ShieldBudget {
    floor: u64,
    percent: u64,
    origin: Instant,
    window: Mutex<BudgetWindow>,
}

#[derive(Debug, Default)]
struct BudgetWindow {
    /// The second, since the origin, of the newest slot.
    now: u64,
    slots: [BudgetSlot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct BudgetSlot {
    stable: u64,
    charged: u64,
}

/// One charge. Pass it to [`ShieldBudget::refund`] when the replay helped; otherwise it stays
/// charged until its second has left the window.
#[derive(Debug)]
#[must_use]
pub struct BudgetCharge {
    second: u64,
}

impl ShieldBudget {
    /// Creates a budget of `floor` replays plus `percent` of stable's requests in any ten seconds.
    pub fn new(floor: u64, percent: u64, origin: Instant) -> Self {
        Self { floor, percent, origin, window: Mutex::default() }
    }

    /// Records a request to stable that is not a replay.
    pub fn record_stable(&self, now: Instant) {
        self.with_window(now, |window| window.current_slot().stable += 1);
    }

    /// Charges a replay, unless the budget is spent.
    pub fn try_charge(&self, now: Instant) -> Option<BudgetCharge> {
        self.with_window(now, |window| {
            let (stable, charged) = window.totals();
            (charged < self.floor + stable * self.percent / 100).then(|| {
                window.current_slot().charged += 1;
                BudgetCharge { second: window.now }
            })
        })
    }

    /// Returns a charge to the budget.
    pub fn refund(&self, charge: BudgetCharge, now: Instant) {
        self.with_window(now, |window| {
            if window.now - charge.second < SLOTS as u64 {
                let slot = &mut window.slots[(charge.second % SLOTS as u64) as usize];
                slot.charged = slot.charged.saturating_sub(1);
            }
        });
    }

    fn with_window<T>(&self, now: Instant, act: impl FnOnce(&mut BudgetWindow) -> T) -> T {
        let second = now.saturating_duration_since(self.origin).as_secs() / SLOT_DURATION.as_secs();
        let mut window = self.window.lock();
        window.advance(second);
        act(&mut window)
    }
}

impl BudgetWindow {
    fn advance(&mut self, second: u64) {
        // A thread that read its clock earlier must not move the window back.
        let steps = second.saturating_sub(self.now).min(SLOTS as u64);
        self.now = self.now.max(second);
        for back in 0..steps {
            self.slots[((self.now - back) % SLOTS as u64) as usize] = BudgetSlot::default();
        }
    }

    fn current_slot(&mut self) -> &mut BudgetSlot {
        &mut self.slots[(self.now % SLOTS as u64) as usize]
    }

    fn totals(&self) -> (u64, u64) {
        self.slots
            .iter()
            .fold((0, 0), |(stable, charged), slot| (stable + slot.stable, charged + slot.charged))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget() -> (ShieldBudget, Instant) {
        let origin = Instant::now();
        (ShieldBudget::new(3, 20, origin), origin)
    }

    #[test]
    fn the_floor_is_there_without_traffic() {
        let (budget, now) = budget();
        let charges: Vec<_> = std::iter::from_fn(|| budget.try_charge(now)).collect();
        assert_eq!(charges.len(), 3);
    }

    #[test]
    fn traffic_of_stable_earns_a_fifth() {
        let (budget, now) = budget();
        (0..100).for_each(|_| budget.record_stable(now));
        assert_eq!(std::iter::from_fn(|| budget.try_charge(now)).count(), 23);
        assert!(budget.try_charge(now + Duration::from_secs(9)).is_none(), "still in the window");
        assert_eq!(
            std::iter::from_fn(|| budget.try_charge(now + Duration::from_secs(10))).count(),
            3
        );
    }

    #[test]
    fn replays_that_help_are_free() {
        let (budget, now) = budget();
        for _ in 0..1000 {
            let charge = budget.try_charge(now).unwrap();
            budget.refund(charge, now);
        }
        let late = budget.try_charge(now).unwrap();
        budget.refund(late, now + Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn never_more_than_allowed_in_any_window(steps in proptest::collection::vec((0u64..1500, any::<bool>()), 1..400)) {
            let (budget, origin) = budget();
            let (mut millis, mut granted, mut stable) = (0, Vec::new(), Vec::new());
            for (pause, replay) in steps {
                millis += pause;
                let now = origin + Duration::from_millis(millis);
                if !replay {
                    budget.record_stable(now);
                    stable.push(millis / 1000);
                } else if budget.try_charge(now).is_some() {
                    granted.push(millis / 1000);
                    let from = (millis / 1000).saturating_sub(9);
                    let inside = |seconds: &[u64]| seconds.iter().filter(|s| **s >= from).count();
                    prop_assert!(inside(&granted) <= 3 + inside(&stable) / 5 );
                }
            }
        }
    }
}
