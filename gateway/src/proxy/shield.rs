//! The shield: requests that the candidate failed to answer are sent to stable, within the
//! deadline. The client gets stable's answer, and the failure counts against the candidate.
//!
//! A slow candidate is not cut off: after the try time-out, which is derived from stable's own
//! times ([`slipway_gateway_policy::latency`]) and not from the client, stable gets the request,
//! too, and the first complete answer goes to the client. Each arm thus has the client's full
//! deadline, however short, and an equally good candidate loses nothing that stable would have
//! answered. Requests beyond the try time-out count alike in both arms, abandoned or answered, so
//! that the judge compares equals. The brake compares only with a witness: the same request to
//! stable, answered within the same time ([`super::witness`]).

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

/// The result of a request to the candidate.
enum HedgedAnswer {
    /// The candidate answered or failed by itself.
    Candidate(Result<GatheredAnswer, ArmFailure>),
    /// Stable got the request, too, and its answer counts.
    Stable(Result<GatheredAnswer, ArmFailure>, ArmCall),
}

/// Sends a request to the candidate, with stable as the fallback.
pub async fn forward_shielded(
    mut job: ProxyExchange,
    candidate: Arc<Arm>,
    stable: Arc<Arm>,
) -> Response<AnswerBody> {
    let covered = !stable.endpoints.is_empty();
    // Without endpoints of stable there is no witness: the candidate may be overloaded because
    // stable is down.
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
        // The client's deadline has passed. The witness is evaluated without the client.
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

/// Sends the request to the candidate, and also to stable when the candidate takes too long.
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

/// Sends the request also to stable; the first successful answer goes to the client.
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
                // Late, but still the first answer.
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

/// Returns the gathered answer to the client, or the failure.
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

/// Sends the request to stable. Over HTTP the head of the answer determines the outcome; over gRPC
/// the end of the answer does, unless the head contains the status already.
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

/// Sends a request that may not run twice. It is shielded only if it did not run, because no pod of
/// the candidate accepted it.
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

/// Replays the request to stable. Only stable's answer, the witness, shows whether the brake should
/// count the failure. When stable fails too, the cause is the request or the environment rather
/// than the candidate, and the charge stays on the budget.
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

/// The candidate blames the client, or answers with a NaN. If stable does the same, that is right;
/// if stable answers, the candidate's contract differs, or it fails and blames the client, which
/// would be invisible to metrics that count only 5xx.
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
    // A check that stable confirms is not charged.
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
