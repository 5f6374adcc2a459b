//! The shield: what the candidate failed to answer is asked of stable, within the deadline. The client gets stable's answer, the
//! candidate gets the blame.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, header::CONTENT_TYPE, response::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    Job,
    answer::{AnswerBody, Head, Passing, for_client},
    arm::{Failure, reach},
    count::ArmCall,
    grpc,
    headers::is_cached,
    mark,
};
use crate::{
    budget::Charge,
    buffer::{Reservation, Whole},
    gateway::Gateway,
    metrics::Outcome,
    model::Arm,
    upstream::Download,
};

/// An answer of the candidate, as far as it was read before the client sees any of it.
enum Gathered {
    /// All of it.
    Whole(Parts, Whole, Head),
    /// Its beginning: too large to keep, or a stream of events.
    Passing(Parts, Vec<Bytes>, Download, Head),
}

/// Sends a request to the candidate with stable behind it.
pub async fn shielded(mut job: Job, candidate: Arc<Arm>, stable: Arc<Arm>) -> Response<AnswerBody> {
    let mut call = ArmCall::start(&candidate, true);
    job.client.reach();
    // With nobody behind the candidate it may take all the time there is.
    let covered = !stable.endpoints.is_empty();
    let until = if covered { candidate_deadline(&job) } else { job.deadline };
    let asked = async {
        let response = reach(&job.gateway, &job.model, &candidate, &mut job.plan, until, false).await?;
        gather(&job.gateway, response).await
    };
    let gathered = timeout_at(until, asked).await.unwrap_or(Err(Failure::Deadline));
    let outcome = outcome_of(&gathered);
    if let Ok(Gathered::Whole(parts, ..) | Gathered::Passing(parts, ..)) = &gathered {
        call.answered(job.model.config.caching && is_cached(&parts.headers));
    }
    if covered && outcome.is_failure() {
        match charge(&job, &candidate) {
            Ok(charge) => return replay(job, call, outcome, stable, charge).await,
            Err(Spent) => candidate.metrics.shield_refused.inc(),
        };
    } else if covered
        && (outcome == Outcome::ClientError || outcome == Outcome::Success && holds_nan(&gathered))
        && let Ok(charge) = charge(&job, &candidate)
    {
        return second_opinion(job, call, gathered, stable, charge).await;
    }
    finish(job, call, gathered, None)
}

/// Gives the client an answer as far as it was gathered, or tells that there is none.
fn finish(
    mut job: Job,
    mut call: ArmCall,
    gathered: Result<Gathered, Failure>,
    shielded: Option<&Arm>,
) -> Response<AnswerBody> {
    let arm = Arc::clone(call.arm());
    match gathered {
        Ok(Gathered::Whole(parts, whole, head)) => {
            call.close(head.outcome);
            job.client.close(for_client(head.outcome, head.status));
            mark(Response::from_parts(parts, AnswerBody::whole(whole)), &arm, shielded)
        }
        Ok(Gathered::Passing(parts, prefix, rest, head)) => {
            let body = Passing::new(rest, job.deadline, call, job.client, head).with_prefix(prefix);
            mark(Response::from_parts(parts, AnswerBody::Passing(Box::new(body))), &arm, shielded)
        }
        Err(failure) => {
            call.close(failure.outcome());
            job.refuse(failure.refusal())
        }
    }
}

fn outcome_of(gathered: &Result<Gathered, Failure>) -> Outcome {
    match gathered {
        Ok(Gathered::Whole(_, _, head) | Gathered::Passing(_, _, _, head)) => head.outcome,
        Err(failure) => failure.outcome(),
    }
}

fn holds_nan(gathered: &Result<Gathered, Failure>) -> bool {
    matches!(gathered, Ok(Gathered::Whole(_, _, head) | Gathered::Passing(_, _, _, head)) if head.nan)
}

/// Asks stable. Over HTTP its head tells how it went; over gRPC the end of its answer does, unless the head has the status already.
async fn ask_stable(job: &mut Job, stable: &Arc<Arm>) -> Result<Gathered, Failure> {
    let response = reach(&job.gateway, &job.model, stable, &mut job.plan, job.deadline, true).await?;
    if job.plan.grpc && grpc::outcome(response.headers()).is_none() {
        return timeout_at(job.deadline, gather(&job.gateway, response)).await.unwrap_or(Err(Failure::Deadline));
    }
    let (parts, body) = response.into_parts();
    let head = Head::of(parts.status, &parts.headers);
    Ok(Gathered::Passing(parts, Vec::new(), body, head))
}

/// A request that may not run twice is shielded only where it did not run: no pod of the candidate took it.
pub async fn rescued(mut job: Job, candidate: Arc<Arm>, stable: Arc<Arm>) -> Response<AnswerBody> {
    let call = ArmCall::start(&candidate, true);
    job.client.reach();
    let result = reach(&job.gateway, &job.model, &candidate, &mut job.plan, job.deadline, false).await;
    if result.as_ref().is_err_and(|failure| *failure == Failure::Unreachable)
        && !stable.endpoints.is_empty()
        && let Ok(charge) = charge(&job, &candidate)
    {
        return replay(job, call, Outcome::Unavailable, stable, charge).await;
    }
    job.complete(result, call, None)
}

/// Asks stable. Whether the candidate is to blame for the brake is known only then: stable's answer is the witness. When stable
/// fails too, the request or the world is bad rather than the candidate, and the charge stays on the budget.
async fn replay(
    mut job: Job,
    mut call: ArmCall,
    outcome: Outcome,
    stable: Arc<Arm>,
    charge: Option<Charge>,
) -> Response<AnswerBody> {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.shielded.inc();
    call.close_unjudged(outcome);
    let stable_call = ArmCall::start(&stable, false);
    let gathered = ask_stable(&mut job, &stable).await;
    if !outcome_of(&gathered).is_failure() {
        candidate.judge(true);
        if let Some(charge) = charge {
            job.model.budget.give_back(charge, Instant::now().into_std());
        }
    }
    finish(job, stable_call, gathered, Some(&candidate))
}

/// The candidate says that the client is wrong, or answers with a NaN. If stable says so too, it is so; if stable answers, the candidate's
/// contract is another, or it fails and blames the client, which would hide from everybody who counts only 5xx.
async fn second_opinion(
    mut job: Job,
    mut call: ArmCall,
    gathered: Result<Gathered, Failure>,
    stable: Arc<Arm>,
    charge: Option<Charge>,
) -> Response<AnswerBody> {
    let candidate = Arc::clone(call.arm());
    candidate.metrics.shielded.inc();
    let own = outcome_of(&gathered);
    let mut stable_call = ArmCall::start(&stable, false);
    let asked = ask_stable(&mut job, &stable).await;
    let outcome = outcome_of(&asked);
    // What stable agrees with need not be paid for.
    if let Some(charge) = charge.filter(|_| !outcome.is_failure()) {
        job.model.budget.give_back(charge, Instant::now().into_std());
    }
    if own == Outcome::Success && outcome != Outcome::Success {
        // An answer with a NaN is better than none.
        stable_call.close(outcome);
        return finish(job, call, gathered, None);
    }
    let contradicted = outcome == Outcome::Success && !(own == Outcome::Success && holds_nan(&asked));
    call.close(if contradicted { Outcome::ContractError } else { own });
    finish(job, stable_call, asked, contradicted.then_some(&candidate))
}

struct Spent;

/// Charges a replay. Once the brake has acted, what was on its way to the candidate is free: there is an end to it.
fn charge(job: &Job, candidate: &Arm) -> Result<Option<Charge>, Spent> {
    if candidate.is_braked() {
        return Ok(None);
    }
    job.model.budget.charge(Instant::now().into_std()).map(Some).ok_or(Spent)
}

/// The candidate's part of the time: what is configured, or half, so that as much is left for stable.
fn candidate_deadline(job: &Job) -> Instant {
    let now = Instant::now();
    let half = job.deadline.saturating_duration_since(now) / 2;
    let configured = job.model.config.shield.candidate_timeout;
    // A configured time beyond the deadline would leave nothing for stable.
    let left = job.deadline.saturating_duration_since(now);
    now + configured.map_or(half, |time| if time < left { time } else { half })
}

/// Reads the answer whole, if it is of a kind and size that can be.
async fn gather(gateway: &Gateway, response: Response<Download>) -> Result<Gathered, Failure> {
    let (parts, mut body) = response.into_parts();
    let mut head = Head::of(parts.status, &parts.headers);
    let max = gateway.settings.max_buffered_response;
    let events = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if events || body.size_hint().lower() > max as u64 {
        return Ok(Gathered::Passing(parts, Vec::new(), body, head));
    }
    let mut whole = Whole::default();
    let mut reservation = Reservation::new(&gateway.memory);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Failure::Broken)?.into_data() {
            Ok(data) => {
                length += data.len();
                let fits = length <= max && reservation.grow(data.len());
                whole.chunks.push(data);
                if !fits {
                    return Ok(Gathered::Passing(parts, whole.chunks, body, head));
                }
            }
            Err(frame) => {
                whole.trailers = frame.into_trailers().ok();
                if let Some(outcome) = whole.trailers.as_ref().and_then(grpc::outcome) {
                    head.outcome = outcome;
                }
            }
        }
    }
    whole.reservation = Some(reservation);
    Ok(Gathered::Whole(parts, whole, head))
}
