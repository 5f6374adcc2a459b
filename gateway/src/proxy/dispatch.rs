//! Chooses the arm of a request, and how it is sent there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, Response};
use slipway_gateway_policy::config::ArmRole;
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::outcome::RequestOutcome;
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::model::{Arm, RoutedModel};
use slipway_gateway_upstream::download::DownloadBody;
use tokio::time::Instant;

use super::answer::AnswerBody;
use super::arm::{RetryPolicy, send_to_arm};
use super::call_guards::ArmCall;
use super::exchange::ProxyExchange;
use super::shield;

/// Chooses the arm and sends the request.
pub(super) async fn dispatch_to_arm(job: ProxyExchange, preview: bool) -> Response<AnswerBody> {
    let model = Arc::clone(&job.model);
    if preview {
        // A preview must show the candidate as it is: without the shield, and without effect on the
        // brake.
        return match model.preview_arm() {
            Some(arm) => send_directly(job, Arc::clone(arm), false).await,
            None => job.reject(RequestRefusal::NoRevision),
        };
    }
    let shield = model.config.shield.enabled;
    let stable = model.stable();
    if !job.request.is_replayable() && shield && model.has_candidate() {
        // It cannot be replayed, so it is kept from the candidate: the shield covers every request
        // that a candidate gets.
        model.metrics.counters.unshielded.inc();
        if let Some(stable) = stable {
            stable.counts.unshielded.fetch_add(1, Ordering::Relaxed);
            return send_to_stable(job, Arc::clone(stable)).await;
        }
    }
    let Some(arm) = model.choose_arm(sticky_entity(&model, job.request.headers())) else {
        return job.reject(RequestRefusal::NoRevision);
    };
    let arm = Arc::clone(arm);
    match stable.filter(|_| arm.role == ArmRole::Candidate && shield) {
        // Boxed because they are rare: otherwise the futures of all requests would be larger, and
        // they are moved several times before they run.
        Some(stable) if job.request.is_replayable() && job.request.idempotent => {
            Box::pin(shield::forward_shielded(job, arm, Arc::clone(stable))).await
        }
        Some(stable) => {
            Box::pin(shield::forward_unless_unreachable(job, arm, Arc::clone(stable))).await
        }
        None if arm.role == ArmRole::Stable => send_to_stable(job, arm).await,
        None => send_directly(job, arm, true).await,
    }
}

fn sticky_entity<'a>(model: &RoutedModel, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let value = headers.get(model.config.sticky_header.as_ref()?)?;
    (!value.is_empty()).then_some(value.as_bytes())
}

/// Sends a request to stable. While no pod of stable accepts it, a candidate with a weight gets it:
/// the request has not run, and any answer is better than none. The next request tries stable
/// again.
async fn send_to_stable(job: ProxyExchange, stable: Arc<Arm>) -> Response<AnswerBody> {
    match job.model.spillover_arm().cloned() {
        Some(candidate) => Box::pin(send_with_spillover(job, stable, candidate)).await,
        None => send_directly(job, stable, true).await,
    }
}

async fn send_with_spillover(
    mut job: ProxyExchange,
    stable: Arc<Arm>,
    candidate: Arc<Arm>,
) -> Response<AnswerBody> {
    if !stable.endpoints.is_empty() {
        let (result, mut call) = call_arm(&mut job, &stable, true, RetryPolicy::Broken).await;
        if !result.as_ref().is_err_and(|failure| *failure == ArmFailure::Unreachable) {
            return job.complete(result, call, None);
        }
        call.close(RequestOutcome::Unavailable);
        stable.metrics.counters.shielded.inc();
    }
    candidate.metrics.counters.spilled.inc();
    // The candidate is sized for its own share: its failures here are counted, but do not trip the
    // brake.
    let (result, mut call) = call_arm(&mut job, &candidate, false, RetryPolicy::Broken).await;
    if !result.as_ref().is_err_and(|failure| *failure == ArmFailure::Unreachable) {
        return job.complete(result, call, None);
    }
    call.close(RequestOutcome::Unavailable);
    candidate.metrics.counters.shielded.inc();
    send_directly(job, stable, true).await
}

/// Sends a request to an arm without an alternative.
async fn send_directly(
    mut job: ProxyExchange,
    arm: Arc<Arm>,
    judged: bool,
) -> Response<AnswerBody> {
    let (result, call) = call_arm(&mut job, &arm, judged, RetryPolicy::Wait).await;
    job.complete(result, call, None)
}

async fn call_arm(
    job: &mut ProxyExchange,
    arm: &Arc<Arm>,
    judged: bool,
    retry: RetryPolicy,
) -> (Result<Response<DownloadBody>, ArmFailure>, ArmCall) {
    let call = ArmCall::start(arm, job.timing, judged);
    job.client.mark_reached_arm(job.timing);
    if arm.role == ArmRole::Stable {
        job.model.budget.record_stable(Instant::now().into_std());
    }
    (send_to_arm(&job.gateway, &job.model, arm, &job.request, job.deadline, retry).await, call)
}
