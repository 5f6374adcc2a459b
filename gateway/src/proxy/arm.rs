//! One request to one arm: waits for a pod if there is none, chooses pods, and retries what can
//! safely be retried.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::Response;
use slipway_chassis::telemetry;
use slipway_gateway_policy::config::ArmRole;
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::{Arm, RoutedModel};
use slipway_gateway_upstream::download::DownloadBody;
use slipway_gateway_upstream::endpoint::{InFlightGuard, UpstreamEndpoint};
use slipway_gateway_upstream::send::{SendError, send_request};
use tokio::time::{Instant, timeout_at};

use super::buffered_request::BufferedRequest;

/// Maximum number of pods tried for one request.
const MAX_PODS: usize = 3;

/// Which attempts are made at one arm before its failure is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Other pods, when a pod did not accept the request. For arms with an alternative arm.
    Unsent,
    /// Also one further attempt of a pure request whose connection broke.
    Broken,
    /// Also a short wait for new pods. For arms without an alternative.
    Wait,
}

/// Sends the request to the arm.
///
/// # Errors
/// When there is no answer; the head of an answer of any status counts as success here.
pub async fn send_to_arm(
    gateway: &GatewayContext,
    model: &RoutedModel,
    arm: &Arc<Arm>,
    plan: &BufferedRequest,
    deadline: Instant,
    retry: RetryPolicy,
) -> Result<Response<DownloadBody>, ArmFailure> {
    let work = async {
        let until = deadline.min(Instant::now() + gateway.settings.endpoint_wait);
        let (mut attempts, mut current) = (RetryAttempts::default(), Arc::clone(arm));
        loop {
            let failure = match attempts.try_pods(&current, plan, retry).await {
                Ok(response) => return Ok(response),
                Err(AttemptsError::Final(failure)) => return Err(failure),
                Err(AttemptsError::Exhausted(failure)) => failure,
            };
            if retry != RetryPolicy::Wait {
                return Err(failure);
            }
            match Box::pin(wait_for_endpoint(gateway, model, arm, &attempts.tried, until)).await {
                Some(arm) => current = arm,
                None => return Err(failure),
            }
        }
    };
    let span = || slipway_chassis::span!("arm", otel.kind = "client", revision = arm.revision.as_str(), role = ?arm.role);
    // By reference: the future of who waits would have room for it twice.
    let work = pin!(timeout_at(deadline, work));
    telemetry::run_in_span(span, work).await.unwrap_or(Err(ArmFailure::Deadline))
}

/// Why a round of attempts ended without an answer.
enum AttemptsError {
    /// No further attempt is allowed.
    Final(ArmFailure),
    /// Every pod of the table was tried; a new one may still be.
    Exhausted(ArmFailure),
}

/// The attempts made for one request.
#[derive(Debug, Default)]
struct RetryAttempts {
    tried: Vec<SocketAddr>,
    /// The pod whose connection broke; the request is sent again once.
    broke_at: Option<SocketAddr>,
    sent: usize,
}

impl RetryAttempts {
    /// Tries the pods of an arm.
    async fn try_pods(
        &mut self,
        arm: &Arm,
        plan: &BufferedRequest,
        retry: RetryPolicy,
    ) -> Result<Response<DownloadBody>, AttemptsError> {
        while self.tried.len() < MAX_PODS {
            let Some(visit) = pick_endpoint(arm, &self.tried, self.broke_at, plan.affinity) else {
                return Err(AttemptsError::Exhausted(self.failure()));
            };
            let Some(mut request) = plan.next_attempt() else {
                return Err(AttemptsError::Final(self.failure()));
            };
            telemetry::inject_traceparent(request.headers_mut());
            let endpoint = Arc::clone(&visit.endpoint);
            if self.sent > 0 {
                arm.metrics.counters.retries.inc();
            }
            self.sent += 1;
            // After one broken connection, the other connections to the same pod are unreliable.
            match send_request(visit, request, plan.protocol(), self.broke_at.is_some()).await {
                Ok(response) => return Ok(response),
                Err(SendError::Unsent(request, error)) => {
                    tracing::debug!(addr = %endpoint.addr, error, "no connection");
                    endpoint.mark_suspect();
                    plan.restore_body(*request);
                    self.tried.push(endpoint.addr);
                }
                Err(SendError::Upload(failure)) => return Err(AttemptsError::Final(failure)),
                Err(SendError::Broken { error, reused }) => {
                    tracing::debug!(addr = %endpoint.addr, error, "broke off");
                    self.record_break(&endpoint, reused, plan.idempotent, retry)?;
                }
            }
        }
        Err(AttemptsError::Final(self.failure()))
    }

    /// Decides whether one more attempt is allowed. A reused connection may have been closed at the
    /// moment of sending: the pod is not at fault, and may be the only one. On a new connection the
    /// pod is at fault, and another pod is tried only if the policy allows it.
    fn record_break(
        &mut self,
        endpoint: &UpstreamEndpoint,
        reused: bool,
        pure: bool,
        retry: RetryPolicy,
    ) -> Result<(), AttemptsError> {
        if self.broke_at.is_some() || !pure || !(reused || retry != RetryPolicy::Unsent) {
            return Err(AttemptsError::Final(ArmFailure::Broken));
        }
        self.broke_at = Some(endpoint.addr);
        if !reused {
            self.tried.push(endpoint.addr);
        }
        Ok(())
    }

    fn failure(&self) -> ArmFailure {
        self.broke_at.map_or(ArmFailure::Unreachable, |_| ArmFailure::Broken)
    }
}

/// Chooses an untried pod; the pod with the broken connection only when there is no other.
fn pick_endpoint(
    arm: &Arm,
    tried: &[SocketAddr],
    broke_at: Option<SocketAddr>,
    affinity: Option<u64>,
) -> Option<InFlightGuard> {
    let pick = |tried: &[SocketAddr]| match affinity {
        Some(fingerprint) => arm.endpoints.pick_affine(fingerprint, tried),
        None => arm.endpoints.pick(tried),
    };
    let Some(broke_at) = broke_at else { return pick(tried) };
    let doubtful: Vec<_> = tried.iter().copied().chain([broke_at]).collect();
    pick(&doubtful).or_else(|| pick(tried))
}

/// Waits until the arm has an untried endpoint. A short time without endpoints is normal when all
/// pods restart at once, and the tried pods may be those of a table that has been replaced since.
async fn wait_for_endpoint(
    gateway: &GatewayContext,
    model: &RoutedModel,
    arm: &Arm,
    tried: &[SocketAddr],
    until: Instant,
) -> Option<Arc<Arm>> {
    let mut changes = gateway.router.subscribe();
    loop {
        let current = gateway.router.table().models.get(&model.config.name).cloned();
        // Stable may be another revision by now: any answer of stable counts.
        let arm = current.and_then(|model| match arm.role {
            ArmRole::Stable => model.stable().cloned(),
            ArmRole::Candidate => model.arm(&arm.revision).cloned(),
        });
        if let Some(arm) = arm.filter(|arm| arm.endpoints.has_other_than(tried)) {
            return Some(arm);
        }
        timeout_at(until, changes.changed()).await.ok()?.ok()?;
    }
}
