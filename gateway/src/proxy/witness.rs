//! The witness for a candidate that does not answer: stable gets the same request with the same
//! time limit, although no client waits for it any more.
//!
//! Clients often disconnect before any time-out, so a hanging candidate would never be detected by
//! their requests. That a client disconnected proves little by itself: the request may be too
//! expensive, or the client may do so on purpose. Whether stable answers the same request in the
//! same time shows who is to blame, independent of the clients and their share of the candidate's
//! traffic.

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

/// Exists while a request waits for the candidate; sends the request to stable when it is dropped
/// without having been dismissed.
#[derive(Debug)]
pub struct StableWitness {
    /// `None` when there is no witness, or when it is not needed any more.
    case: Option<WitnessCase>,
    since: Instant,
    /// When stable got the request beside the candidate.
    asked_at: Option<Instant>,
}

/// The request to repeat.
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
    /// Creates a witness; without endpoints of stable there is none.
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

    pub fn is_present(&self) -> bool {
        self.case.is_some()
    }

    /// Records that stable got the request beside the candidate.
    pub fn record_asked(&mut self, at: Instant) {
        self.asked_at = Some(at);
    }

    /// Dismisses the witness: the candidate has answered, or its failure has been judged.
    pub fn dismiss(&mut self) {
        self.case = None;
    }
}

impl Drop for StableWitness {
    fn drop(&mut self) {
        let Some(case) = self.case.take() else { return };
        // A client that waited for less than stable takes proves nothing. Nor is stable tried again
        // when it has already had the try time-out.
        let time = self.since.elapsed();
        let answered_in_time = self
            .asked_at
            .is_some_and(|at| at.elapsed() >= case.timing.try_timeout.unwrap_or_default());
        if answered_in_time || time < case.timing.blame_threshold || case.candidate.is_braked() {
            return;
        }
        // It needs a permit and a charge like a replay, so that clients that disconnect cannot
        // cause more work than others.
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
    /// Gives stable as much time as the candidate had.
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
        // Running out of this limited time is not a failure of stable.
        let ran_out = matches!(asked, Err(ArmFailure::Deadline));
        call.close_unjudged(if ran_out { RequestOutcome::Cancelled } else { outcome });
        if !outcome.is_failure() {
            self.candidate.update_brake(true);
            refund_replay(model, charge);
        }
    }
}
