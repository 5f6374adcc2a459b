//! The shield: what the candidate failed to answer is asked of stable, within the deadline. The
//! client gets stable's answer, the candidate gets the blame.
//!
//! A candidate that is slow is not cut off: after the time-out of a try, which comes from stable's
//! own times ([`slipway_gateway_policy::latency`]) and from no client, stable is asked beside it,
//! and the first whole answer goes to the client. So each arm has all of the client's deadline,
//! however short that is, and an equally good candidate loses nothing that stable would have
//! answered. What took longer than a try may take is counted alike in both arms, given up or
//! answered, so that the judge compares like with like. The brake compares with nothing but a
//! witness: stable, asked the same, answered within the same time ([`super::witness`]).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::Response;
use slipway_gateway_policy::budget::BudgetCharge;
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::outcome::RequestOutcome;
use slipway_gateway_routing::model::Arm;
use slipway_gateway_upstream::buffer::BodyPrefix;
use tokio::time::{Instant, timeout_at};

use super::answer::{AnswerBody, ResponseHead, StreamingBody, client_outcome};
use super::arm::{RetryPolicy, send_to_arm};
use super::call_guards::ArmCall;
use super::exchange::{AnswerContext, ProxyExchange, finish_response};
use super::gather::{
    GatheredAnswer, gather_answer, gather_from_arm, holds_nan, is_failed, outcome_of, timed_outcome,
};
use super::headers::is_cached;
use super::replay_budget::{BudgetSpent, charge_replay, refund_replay};
use super::witness::StableWitness;

/// What became of a request to the candidate.
enum HedgedAnswer {
    /// The candidate answered or failed by itself.
    Candidate(Result<GatheredAnswer, ArmFailure>),
    /// Stable was asked beside it, and its answer is the one that counts.
    Stable(Result<GatheredAnswer, ArmFailure>, ArmCall),
}

/// Sends a request to the candidate with stable behind it.
pub async fn forward_shielded(
    mut job: ProxyExchange,
    candidate: Arc<Arm>,
    stable: Arc<Arm>,
) -> Response<AnswerBody> {
    let covered = !stable.endpoints.is_empty();
    // With nobody behind the candidate there is no witness either: it may have too much to do
    // because stable does nothing.
    let mut call = ArmCall::start(&candidate, job.timing, covered);
    job.client.mark_reached_arm(job.timing);
    let mut witness = StableWitness::new(&job, &candidate, &stable);
    let gathered = match send_hedged(&job, &mut call, &stable, &mut witness).await {
        HedgedAnswer::Candidate(gathered) => gathered,
        HedgedAnswer::Stable(asked, stable_call) => {
            return finish_exchange(job, stable_call, asked, Some(&candidate));
        }
    };
    let outcome = outcome_of(&gathered);
    if let Ok(GatheredAnswer::Complete(parts, ..) | GatheredAnswer::Partial(parts, ..)) = &gathered
    {
        call.set_cached(job.model.config.caching && is_cached(&parts.headers));
    }
    if matches!(gathered, Err(ArmFailure::Deadline)) {
        // The client's time is over. The witness is heard without it.
        call.close_unjudged(call.failure_outcome(ArmFailure::Deadline));
        return job.refuse(ArmFailure::Deadline.refusal());
    }
    witness.dismiss();
    if covered && outcome.is_failure() {
        match charge_replay(&job.model, &candidate) {
            Ok(charge) => return replay_to_stable(job, call, outcome, stable, charge).await,
            Err(BudgetSpent) => candidate.metrics.counters.shield_refused.inc(),
        };
    } else if covered
        && (outcome == RequestOutcome::ClientError
            || outcome == RequestOutcome::Success && holds_nan(&gathered))
        && let Ok(charge) = charge_replay(&job.model, &candidate)
    {
        return second_opinion(job, call, gathered, stable, charge).await;
    }
    finish_exchange(job, call, gathered, None)
}

/// Asks the candidate, and stable beside it when that takes too long.
async fn send_hedged(
    job: &ProxyExchange,
    call: &mut ArmCall,
    stable: &Arc<Arm>,
    witness: &mut StableWitness,
) -> HedgedAnswer {
    let candidate = Arc::clone(call.arm());
    let mut first = pin!(gather_from_arm(
        &job.gateway,
        &job.model,
        &job.request,
        &candidate,
        job.deadline,
        RetryPolicy::Unsent,
        None
    ));
    let Some(time) = job.timing.try_timeout.filter(|_| witness.is_present()) else {
        return HedgedAnswer::Candidate(first.await);
    };
    if let Ok(gathered) = timeout_at(call.started_at() + time, first.as_mut()).await {
        return HedgedAnswer::Candidate(gathered);
    }
    match charge_replay(&job.model, &candidate) {
        Ok(charge) => race_stable(job, first, call, stable, witness, charge).await,
        Err(BudgetSpent) => {
            candidate.metrics.counters.shield_refused.inc();
            HedgedAnswer::Candidate(first.await)
        }
    }
}

/// Asks stable beside the candidate; the first answer that is none of a failure is the client's.
async fn race_stable(
    job: &ProxyExchange,
    mut first: Pin<&mut impl Future<Output = Result<GatheredAnswer, ArmFailure>>>,
    call: &mut ArmCall,
    stable: &Arc<Arm>,
    witness: &mut StableWitness,
    charge: Option<BudgetCharge>,
) -> HedgedAnswer {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.counters.shielded.inc();
    let had = call.started_at().elapsed();
    let mut stable_call = ArmCall::start(stable, job.timing, false);
    witness.record_asked(stable_call.started_at());
    let same_time = stable_call.started_at() + had;
    let (gateway, model, plan) = (&job.gateway, &job.model, &job.request);
    let mut second = pin!(gather_from_arm(
        gateway,
        model,
        plan,
        stable,
        job.deadline,
        RetryPolicy::Wait,
        Some(same_time)
    ));
    let (own, asked) = tokio::select! {
        biased;
        own = first.as_mut() => {
            if !is_failed(&own) {
                // Late, and still the first.
                stable_call.close_unjudged(RequestOutcome::Cancelled);
                refund_replay(model, charge);
                return HedgedAnswer::Candidate(own);
            }
            (Some(own), second.await)
        }
        asked = second.as_mut() => if is_failed(&asked) {
            let own = first.await;
            if !is_failed(&own) {
                stable_call.close_unjudged(timed_outcome(&stable_call, &asked));
                return HedgedAnswer::Candidate(own);
            }
            (Some(own), asked)
        } else {
            (None, asked)
        }
    };
    let hangs = own.as_ref().is_none_or(|own| matches!(own, Err(ArmFailure::Deadline)));
    call.close_unjudged(
        own.as_ref().map_or(RequestOutcome::TryTimeout, |own| timed_outcome(call, own)),
    );
    if !is_failed(&asked) {
        if !hangs || Instant::now() < same_time {
            candidate.update_brake(true);
        }
        refund_replay(model, charge);
    }
    if !hangs || !is_failed(&asked) {
        witness.dismiss();
    }
    HedgedAnswer::Stable(asked, stable_call)
}

/// Gives the client an answer as far as it was gathered, or tells that there is none.
fn finish_exchange(
    mut job: ProxyExchange,
    mut call: ArmCall,
    gathered: Result<GatheredAnswer, ArmFailure>,
    shielded: Option<&Arm>,
) -> Response<AnswerBody> {
    let arm = Arc::clone(call.arm());
    let of = AnswerContext { gateway: &job.gateway, model: &job.model, request: &job.request };
    match gathered {
        Ok(GatheredAnswer::Complete(parts, whole, head)) => {
            call.close(head.outcome);
            job.client.close(client_outcome(head.outcome, head.status));
            finish_response(
                Response::from_parts(parts, AnswerBody::buffered(whole)),
                of,
                &arm,
                shielded,
            )
        }
        Ok(GatheredAnswer::Partial(parts, prefix, rest, head)) => {
            let body =
                StreamingBody::new(rest, job.deadline, call, job.client, head).with_prefix(prefix);
            finish_response(
                Response::from_parts(parts, AnswerBody::Streaming(Box::new(body))),
                of,
                &arm,
                shielded,
            )
        }
        Err(failure) => {
            call.fail(failure);
            job.refuse(failure.refusal())
        }
    }
}

/// Asks stable. Over HTTP its head tells how it went; over gRPC the end of its answer does, unless
/// the head has the status already.
async fn ask_stable(job: &ProxyExchange, stable: &Arc<Arm>) -> Result<GatheredAnswer, ArmFailure> {
    let response = send_to_arm(
        &job.gateway,
        &job.model,
        stable,
        &job.request,
        job.deadline,
        RetryPolicy::Wait,
    )
    .await?;
    if job.request.grpc && grpc::status_outcome(response.headers()).is_none() {
        return timeout_at(
            job.deadline,
            gather_answer(&job.gateway.settings, &job.model, response, None),
        )
        .await
        .unwrap_or(Err(ArmFailure::Deadline));
    }
    let (parts, body) = response.into_parts();
    let head = ResponseHead::from_response(parts.status, &parts.headers);
    Ok(GatheredAnswer::Partial(parts, BodyPrefix::default(), body, head))
}

/// A request that may not run twice is shielded only where it did not run: no pod of the candidate
/// took it.
pub async fn forward_unless_unreachable(
    mut job: ProxyExchange,
    candidate: Arc<Arm>,
    stable: Arc<Arm>,
) -> Response<AnswerBody> {
    let call = ArmCall::start(&candidate, job.timing, true);
    job.client.mark_reached_arm(job.timing);
    let result = send_to_arm(
        &job.gateway,
        &job.model,
        &candidate,
        &job.request,
        job.deadline,
        RetryPolicy::Unsent,
    )
    .await;
    if result.as_ref().is_err_and(|failure| *failure == ArmFailure::Unreachable)
        && !stable.endpoints.is_empty()
        && let Ok(charge) = charge_replay(&job.model, &candidate)
    {
        return replay_to_stable(job, call, RequestOutcome::Unavailable, stable, charge).await;
    }
    job.complete(result, call, None)
}

/// Asks stable. Whether the candidate is to blame for the brake is known only then: stable's answer
/// is the witness. When stable fails too, the request or the world is bad rather than the
/// candidate, and the charge stays on the budget.
async fn replay_to_stable(
    job: ProxyExchange,
    mut call: ArmCall,
    outcome: RequestOutcome,
    stable: Arc<Arm>,
    charge: Option<BudgetCharge>,
) -> Response<AnswerBody> {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.counters.shielded.inc();
    call.close_unjudged(outcome);
    let stable_call = ArmCall::start(&stable, job.timing, false);
    let gathered = ask_stable(&job, &stable).await;
    if !outcome_of(&gathered).is_failure() {
        candidate.update_brake(true);
        refund_replay(&job.model, charge);
    }
    finish_exchange(job, stable_call, gathered, Some(&candidate))
}

/// The candidate says that the client is wrong, or answers with a NaN. If stable says so too, it is
/// so; if stable answers, the candidate's contract is another, or it fails and blames the client,
/// which would hide from everybody who counts only 5xx.
async fn second_opinion(
    job: ProxyExchange,
    mut call: ArmCall,
    gathered: Result<GatheredAnswer, ArmFailure>,
    stable: Arc<Arm>,
    charge: Option<BudgetCharge>,
) -> Response<AnswerBody> {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.counters.shielded.inc();
    let own = outcome_of(&gathered);
    let mut stable_call = ArmCall::start(&stable, job.timing, false);
    let asked = ask_stable(&job, &stable).await;
    let outcome = outcome_of(&asked);
    // What stable agrees with need not be paid for.
    refund_replay(&job.model, charge.filter(|_| !outcome.is_failure()));
    if own == RequestOutcome::Success && outcome != RequestOutcome::Success {
        // An answer with a NaN is better than none.
        stable_call.close(outcome);
        return finish_exchange(job, call, gathered, None);
    }
    let contradicted = outcome == RequestOutcome::Success
        && !(own == RequestOutcome::Success && holds_nan(&asked));
    call.close(if contradicted { RequestOutcome::ContractError } else { own });
    finish_exchange(job, stable_call, asked, contradicted.then_some(&candidate))
}
