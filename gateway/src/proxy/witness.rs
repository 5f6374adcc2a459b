//! The witness of a candidate that does not answer: stable, asked the same for as long, although
//! nobody waits for that any more.
//!
//! Clients are often more impatient than any time-out, and a candidate that hangs would never be
//! found out by requests whose clients have left. That a client left says little by itself: it may
//! have asked for too much, or have done so on purpose. What stable does with the same request in
//! the same time says who is to blame, whichever clients there are and whatever share they have of
//! the candidate's traffic.

use std::sync::Arc;
use std::time::Duration;

use slipway_gateway_policy::budget::BudgetCharge;
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::latency::RequestTiming;
use slipway_gateway_policy::outcome::RequestOutcome;
use slipway_gateway_policy::share::RequestPermit;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::{Arm, RoutedModel};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::arm::RetryPolicy;
use super::buffered_request::BufferedRequest;
use super::call_guards::ArmCall;
use super::exchange::ProxyExchange;
use super::gather::{gather_from_arm, outcome_of};
use super::replay_budget::{BudgetSpent, charge_replay, refund_replay};

/// Called while a request waits for the candidate; heard when it is dropped before it was
/// dismissed.
#[derive(Debug)]
pub struct StableWitness {
    /// None when there is no witness, or no need of one any more.
    case: Option<WitnessCase>,
    since: Instant,
    /// When stable was asked beside the candidate.
    asked_at: Option<Instant>,
}

/// What the witness is asked.
#[derive(Debug)]
struct WitnessCase {
    gateway: Arc<GatewayContext>,
    model: Arc<RoutedModel>,
    request: Arc<BufferedRequest>,
    candidate: Arc<Arm>,
    stable: Arc<Arm>,
    timing: RequestTiming,
}

impl StableWitness {
    /// Calls stable, unless it has nobody who could answer.
    pub fn new(job: &ProxyExchange, candidate: &Arc<Arm>, stable: &Arc<Arm>) -> Self {
        let case = || WitnessCase {
            gateway: Arc::clone(&job.gateway),
            model: Arc::clone(&job.model),
            request: Arc::clone(&job.request),
            candidate: Arc::clone(candidate),
            stable: Arc::clone(stable),
            timing: job.timing,
        };
        Self {
            case: (!stable.endpoints.is_empty()).then(case),
            since: Instant::now(),
            asked_at: None,
        }
    }

    /// Whether there is one.
    pub fn is_present(&self) -> bool {
        self.case.is_some()
    }

    /// Notes that stable was asked beside the candidate.
    pub fn record_asked(&mut self, at: Instant) {
        self.asked_at = Some(at);
    }

    /// The candidate has answered, or what it did is known.
    pub fn dismiss(&mut self) {
        self.case = None;
    }
}

impl Drop for StableWitness {
    fn drop(&mut self) {
        let Some(case) = self.case.take() else { return };
        // A client that did not wait for as long as stable takes says nothing. Nor is stable asked
        // again when it has had the time of a try.
        let time = self.since.elapsed();
        let heard = self
            .asked_at
            .is_some_and(|at| at.elapsed() >= case.timing.try_timeout.unwrap_or_default());
        if heard || time < case.timing.blame_threshold || case.candidate.is_braked() {
            return;
        }
        // It takes the place of a request and is paid for as a replay is, so that clients who leave
        // cannot make more work than others.
        let (Ok(runtime), Some(place)) = (Handle::try_current(), case.model.shares.try_acquire())
        else {
            return;
        };
        match charge_replay(&case.model, &case.candidate) {
            Ok(charge) => {
                case.candidate.metrics.counters.shielded.inc();
                drop(runtime.spawn(case.question_stable(time, charge, place)));
            }
            Err(BudgetSpent) => {
                case.candidate.metrics.counters.shield_refused.inc();
            }
        }
    }
}

impl WitnessCase {
    /// Gives stable as long as the candidate had.
    async fn question_stable(
        self,
        time: Duration,
        charge: Option<BudgetCharge>,
        _place: Arc<RequestPermit>,
    ) {
        let mut call = ArmCall::start(&self.stable, self.timing, false);
        let deadline = call.started_at() + time;
        let (gateway, model, plan) = (&self.gateway, &self.model, &self.request);
        let asked = gather_from_arm(
            gateway,
            model,
            plan,
            &self.stable,
            deadline,
            RetryPolicy::Broken,
            None,
        )
        .await;
        let outcome = outcome_of(&asked);
        // What it was not given the time for is no failure of stable.
        let ran_out = matches!(asked, Err(ArmFailure::Deadline));
        call.close_unjudged(if ran_out { RequestOutcome::Cancelled } else { outcome });
        if !outcome.is_failure() {
            self.candidate.update_brake(true);
            refund_replay(model, charge);
        }
    }
}
