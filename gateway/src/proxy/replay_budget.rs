//! The cost of replays.

use slipway_gateway_policy::budget::BudgetCharge;
use slipway_gateway_routing::model::{Arm, RoutedModel};
use tokio::time::Instant;

/// The budget of the shield is spent.
#[derive(Debug)]
pub struct BudgetSpent;

/// Charges a replay. After the brake has tripped, replays of the remaining requests are free,
/// because their number is limited.
///
/// # Errors
/// When the budget is spent.
pub fn charge_replay(
    model: &RoutedModel,
    candidate: &Arm,
) -> Result<Option<BudgetCharge>, BudgetSpent> {
    if candidate.is_braked() {
        return Ok(None);
    }
    model.budget.try_charge(Instant::now().into_std()).map(Some).ok_or(BudgetSpent)
}

/// Refunds a charge, because the replay has helped.
pub fn refund_replay(model: &RoutedModel, charge: Option<BudgetCharge>) {
    if let Some(charge) = charge {
        model.budget.refund(charge, Instant::now().into_std());
    }
}
