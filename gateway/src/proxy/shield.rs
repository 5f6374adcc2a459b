//! The shield: what the candidate failed to answer is asked of stable, within the deadline. The client gets stable's answer, the
//! candidate gets the blame.
//!
//! A candidate that is slow is not cut off: after the time-out of a try, which comes from stable's own times ([`crate::latency`]) and from
//! no client, stable is asked beside it, and the first whole answer goes to the client. So each arm has all of the client's deadline,
//! however short that is, and an equally good candidate loses nothing that stable would have answered. What took longer than a try may
//! take is counted alike in both arms, given up or answered, so that the judge compares like with like. The brake compares with nothing but
//! a witness: stable, asked the same, answered within the same time ([`super::witness`]).

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::Bytes;
use http::{Response, response::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    Job, Of,
    answer::{AnswerBody, Head, Passing, for_client},
    arm::{Failure, Retry, reach},
    count::ArmCall,
    grpc,
    headers::is_cached,
    mark,
    plan::Plan,
    witness::Witness,
};
use crate::{
    budget::Charge,
    buffer::{Buffer, Prefix, Whole},
    config::Settings,
    gateway::Gateway,
    metrics::Outcome,
    model::{Arm, Model},
    upstream::Download,
};

/// An answer of the candidate, as far as it was read before the client sees any of it.
pub enum Gathered {
    /// All of it.
    Whole(Parts, Whole, Head),
    /// Its beginning: too large to keep, or a stream of events.
    Passing(Parts, Prefix, Download, Head),
}

/// What became of a request to the candidate.
enum Tried {
    /// The candidate answered or failed by itself.
    Candidate(Result<Gathered, Failure>),
    /// Stable was asked beside it, and its answer is the one that counts.
    Stable(Result<Gathered, Failure>, ArmCall),
}

/// Sends a request to the candidate with stable behind it.
pub async fn shielded(mut job: Job, candidate: Arc<Arm>, stable: Arc<Arm>) -> Response<AnswerBody> {
    let covered = !stable.endpoints.is_empty();
    // With nobody behind the candidate there is no witness either: it may have too much to do because stable does nothing.
    let mut call = ArmCall::start(&candidate, job.pace, covered);
    job.client.reach(job.pace);
    let mut witness = Witness::new(&job, &candidate, &stable);
    let gathered = match attempt(&job, &mut call, &stable, &mut witness).await {
        Tried::Candidate(gathered) => gathered,
        Tried::Stable(asked, stable_call) => return finish(job, stable_call, asked, Some(&candidate)),
    };
    let outcome = outcome_of(&gathered);
    if let Ok(Gathered::Whole(parts, ..) | Gathered::Passing(parts, ..)) = &gathered {
        call.answered(job.model.config.caching && is_cached(&parts.headers));
    }
    if matches!(gathered, Err(Failure::Deadline)) {
        // The client's time is over. The witness is heard without it.
        call.close_unjudged(call.outcome(Failure::Deadline));
        return job.refuse(Failure::Deadline.refusal());
    }
    witness.dismiss();
    if covered && outcome.is_failure() {
        match charge(&job.model, &candidate) {
            Ok(charge) => return replay(job, call, outcome, stable, charge).await,
            Err(Spent) => candidate.metrics.shield_refused.inc(),
        };
    } else if covered
        && (outcome == Outcome::ClientError || outcome == Outcome::Success && holds_nan(&gathered))
        && let Ok(charge) = charge(&job.model, &candidate)
    {
        return second_opinion(job, call, gathered, stable, charge).await;
    }
    finish(job, call, gathered, None)
}

/// Asks the candidate, and stable beside it when that takes too long.
async fn attempt(job: &Job, call: &mut ArmCall, stable: &Arc<Arm>, witness: &mut Witness) -> Tried {
    let candidate = Arc::clone(call.arm());
    let mut first = pin!(ask(&job.gateway, &job.model, &job.plan, &candidate, job.deadline, Retry::Unsent, None));
    let Some(time) = job.pace.try_timeout.filter(|_| witness.is_called()) else {
        return Tried::Candidate(first.await);
    };
    if let Ok(gathered) = timeout_at(call.since() + time, first.as_mut()).await {
        return Tried::Candidate(gathered);
    }
    match charge(&job.model, &candidate) {
        Ok(charge) => beside(job, first, call, stable, witness, charge).await,
        Err(Spent) => {
            candidate.metrics.shield_refused.inc();
            Tried::Candidate(first.await)
        }
    }
}

/// Asks stable beside the candidate; the first answer that is none of a failure is the client's.
async fn beside(
    job: &Job,
    mut first: Pin<&mut impl Future<Output = Result<Gathered, Failure>>>,
    call: &mut ArmCall,
    stable: &Arc<Arm>,
    witness: &mut Witness,
    charge: Option<Charge>,
) -> Tried {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.shielded.inc();
    let had = call.since().elapsed();
    let mut stable_call = ArmCall::start(stable, job.pace, false);
    witness.asked(stable_call.since());
    let same_time = stable_call.since() + had;
    let (gateway, model, plan) = (&job.gateway, &job.model, &job.plan);
    let mut second = pin!(ask(gateway, model, plan, stable, job.deadline, Retry::Wait, Some(same_time)));
    let (own, asked) = tokio::select! {
        biased;
        own = first.as_mut() => {
            if !failed(&own) {
                // Late, and still the first.
                stable_call.close_unjudged(Outcome::Cancelled);
                give_back(model, charge);
                return Tried::Candidate(own);
            }
            (Some(own), second.await)
        }
        asked = second.as_mut() => if failed(&asked) {
            let own = first.await;
            if !failed(&own) {
                stable_call.close_unjudged(ended(&stable_call, &asked));
                return Tried::Candidate(own);
            }
            (Some(own), asked)
        } else {
            (None, asked)
        }
    };
    let hangs = own.as_ref().is_none_or(|own| matches!(own, Err(Failure::Deadline)));
    call.close_unjudged(own.as_ref().map_or(Outcome::TryTimeout, |own| ended(call, own)));
    if !failed(&asked) {
        if !hangs || Instant::now() < same_time {
            candidate.judge(true);
        }
        give_back(model, charge);
    }
    if !hangs || !failed(&asked) {
        witness.dismiss();
    }
    Tried::Stable(asked, stable_call)
}

/// Gives the client an answer as far as it was gathered, or tells that there is none.
fn finish(
    mut job: Job,
    mut call: ArmCall,
    gathered: Result<Gathered, Failure>,
    shielded: Option<&Arm>,
) -> Response<AnswerBody> {
    let arm = Arc::clone(call.arm());
    let of = Of { gateway: &job.gateway, model: &job.model, plan: &job.plan };
    match gathered {
        Ok(Gathered::Whole(parts, whole, head)) => {
            call.close(head.outcome);
            job.client.close(for_client(head.outcome, head.status));
            mark(Response::from_parts(parts, AnswerBody::whole(whole)), of, &arm, shielded)
        }
        Ok(Gathered::Passing(parts, prefix, rest, head)) => {
            let body = Passing::new(rest, job.deadline, call, job.client, head).with_prefix(prefix);
            mark(Response::from_parts(parts, AnswerBody::Passing(Box::new(body))), of, &arm, shielded)
        }
        Err(failure) => {
            call.fail(failure);
            job.refuse(failure.refusal())
        }
    }
}

/// How a request ended, as far as its answer was read.
pub fn outcome_of(gathered: &Result<Gathered, Failure>) -> Outcome {
    match gathered {
        Ok(Gathered::Whole(_, _, head) | Gathered::Passing(_, _, _, head)) => head.outcome,
        Err(failure) => failure.outcome(),
    }
}

/// The same, where it matters how long there was time.
fn ended(call: &ArmCall, gathered: &Result<Gathered, Failure>) -> Outcome {
    match gathered {
        Err(failure) => call.outcome(*failure),
        Ok(_) => outcome_of(gathered),
    }
}

fn failed(gathered: &Result<Gathered, Failure>) -> bool {
    outcome_of(gathered).is_failure()
}

fn holds_nan(gathered: &Result<Gathered, Failure>) -> bool {
    matches!(gathered, Ok(Gathered::Whole(_, _, head) | Gathered::Passing(_, _, _, head)) if head.nan)
}

/// Asks an arm until the deadline. The answer is whole, or passes through because of its kind or size, or because it is not whole by a time.
pub async fn ask(
    gateway: &Gateway,
    model: &Model,
    plan: &Plan,
    arm: &Arc<Arm>,
    deadline: Instant,
    retry: Retry,
    whole_by: Option<Instant>,
) -> Result<Gathered, Failure> {
    let asked = async {
        gather(&gateway.settings, model, reach(gateway, model, arm, plan, deadline, retry).await?, whole_by).await
    };
    timeout_at(deadline, asked).await.unwrap_or(Err(Failure::Deadline))
}

/// Asks stable. Over HTTP its head tells how it went; over gRPC the end of its answer does, unless the head has the status already.
async fn ask_stable(job: &Job, stable: &Arc<Arm>) -> Result<Gathered, Failure> {
    let response = reach(&job.gateway, &job.model, stable, &job.plan, job.deadline, Retry::Wait).await?;
    if job.plan.grpc && grpc::outcome(response.headers()).is_none() {
        return timeout_at(job.deadline, gather(&job.gateway.settings, &job.model, response, None))
            .await
            .unwrap_or(Err(Failure::Deadline));
    }
    let (parts, body) = response.into_parts();
    let head = Head::of(parts.status, &parts.headers);
    Ok(Gathered::Passing(parts, Prefix::default(), body, head))
}

/// A request that may not run twice is shielded only where it did not run: no pod of the candidate took it.
pub async fn rescued(mut job: Job, candidate: Arc<Arm>, stable: Arc<Arm>) -> Response<AnswerBody> {
    let call = ArmCall::start(&candidate, job.pace, true);
    job.client.reach(job.pace);
    let result = reach(&job.gateway, &job.model, &candidate, &job.plan, job.deadline, Retry::Unsent).await;
    if result.as_ref().is_err_and(|failure| *failure == Failure::Unreachable)
        && !stable.endpoints.is_empty()
        && let Ok(charge) = charge(&job.model, &candidate)
    {
        return replay(job, call, Outcome::Unavailable, stable, charge).await;
    }
    job.complete(result, call, None)
}

/// Asks stable. Whether the candidate is to blame for the brake is known only then: stable's answer is the witness. When stable
/// fails too, the request or the world is bad rather than the candidate, and the charge stays on the budget.
async fn replay(
    job: Job,
    mut call: ArmCall,
    outcome: Outcome,
    stable: Arc<Arm>,
    charge: Option<Charge>,
) -> Response<AnswerBody> {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.shielded.inc();
    call.close_unjudged(outcome);
    let stable_call = ArmCall::start(&stable, job.pace, false);
    let gathered = ask_stable(&job, &stable).await;
    if !outcome_of(&gathered).is_failure() {
        candidate.judge(true);
        give_back(&job.model, charge);
    }
    finish(job, stable_call, gathered, Some(&candidate))
}

/// The candidate says that the client is wrong, or answers with a NaN. If stable says so too, it is so; if stable answers, the candidate's
/// contract is another, or it fails and blames the client, which would hide from everybody who counts only 5xx.
async fn second_opinion(
    job: Job,
    mut call: ArmCall,
    gathered: Result<Gathered, Failure>,
    stable: Arc<Arm>,
    charge: Option<Charge>,
) -> Response<AnswerBody> {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.shielded.inc();
    let own = outcome_of(&gathered);
    let mut stable_call = ArmCall::start(&stable, job.pace, false);
    let asked = ask_stable(&job, &stable).await;
    let outcome = outcome_of(&asked);
    // What stable agrees with need not be paid for.
    give_back(&job.model, charge.filter(|_| !outcome.is_failure()));
    if own == Outcome::Success && outcome != Outcome::Success {
        // An answer with a NaN is better than none.
        stable_call.close(outcome);
        return finish(job, call, gathered, None);
    }
    let contradicted = outcome == Outcome::Success && !(own == Outcome::Success && holds_nan(&asked));
    call.close(if contradicted { Outcome::ContractError } else { own });
    finish(job, stable_call, asked, contradicted.then_some(&candidate))
}

/// The budget of the shield is spent.
#[derive(Debug)]
pub struct Spent;

/// Charges a replay. Once the brake has acted, what was on its way to the candidate is free: there is an end to it.
pub fn charge(model: &Model, candidate: &Arm) -> Result<Option<Charge>, Spent> {
    if candidate.is_braked() {
        return Ok(None);
    }
    model.budget.charge(Instant::now().into_std()).map(Some).ok_or(Spent)
}

/// Gives a charge back: the replay has helped.
pub fn give_back(model: &Model, charge: Option<Charge>) {
    if let Some(charge) = charge {
        model.budget.give_back(charge, Instant::now().into_std());
    }
}

/// Reads the answer whole, if it is of a kind and size that can be.
async fn gather(
    settings: &Settings,
    model: &Model,
    response: Response<Download>,
    whole_by: Option<Instant>,
) -> Result<Gathered, Failure> {
    let (parts, mut body) = response.into_parts();
    let mut head = Head::of(parts.status, &parts.headers);
    let (max, size) = (settings.max_buffered_response, body.size_hint());
    if head.events || size.lower() > max as u64 {
        return Ok(Gathered::Passing(parts, Prefix::default(), body, head));
    }
    let mut buffer = Buffer::new(&model.shares.memory, size.exact());
    let mut trailers = None;
    loop {
        let frame = match whole_by {
            None => body.frame().await,
            Some(time) => match timeout_at(time, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Ok(Gathered::Passing(parts, Prefix::new(buffer, Bytes::new()), body, head)),
            },
        };
        let Some(frame) = frame else { break };
        match frame.map_err(|_| Failure::Broken)?.into_data() {
            Ok(mut data) => {
                let left = if buffer.length() + data.len() <= max { buffer.push(&data).len() } else { data.len() };
                if left > 0 {
                    let unkept = data.split_off(data.len() - left);
                    return Ok(Gathered::Passing(parts, Prefix::new(buffer, unkept), body, head));
                }
            }
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                if let Some(outcome) = trailers.as_ref().and_then(grpc::outcome) {
                    head.outcome = outcome;
                }
            }
        }
    }
    Ok(Gathered::Whole(parts, buffer.finish(trailers), head))
}
