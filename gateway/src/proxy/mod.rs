//! One client request from its head to its answer.

pub mod answer;
pub mod arm;
pub mod buffered_request;
pub mod call_guards;
pub mod gateway_info;
pub mod grpc;
pub mod grpc_routing;
pub mod headers;
pub mod reserved;
pub mod shield;
pub mod upload;
pub mod witness;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::answer::{AnswerBody, RequestRefusal, ResponseHead, StreamingBody};
use self::arm::{ArmFailure, RetryPolicy, send_to_arm};
use self::buffered_request::{BufferedRequest, request_deadline};
use self::call_guards::{ArmCall, ClientCall};
use self::reserved::ReservedOperation;
use self::upload::ClientBody;
use crate::config::ArmRole;
use crate::feedback;
use crate::gateway::GatewayContext;
use crate::latency::RequestTiming;
use crate::metrics::{RejectReason, RequestOutcome};
use crate::model::{Arm, RoutedModel};
use crate::select::{RouteMatch, RouteTarget, select_target};
use crate::upstream::DownloadBody;

/// A request that was read, on its way to an arm.
#[derive(Debug)]
pub struct ProxyExchange {
    gateway: Arc<GatewayContext>,
    model: Arc<RoutedModel>,
    request: Arc<BufferedRequest>,
    client: ClientCall,
    deadline: Instant,
    timing: RequestTiming,
}

/// Answers one request, within a span of it where traces are on.
pub async fn handle_traced(
    gateway: Arc<GatewayContext>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: PortAccess,
) -> Response<AnswerBody> {
    if !slipway_telemetry::enabled() {
        return handle_request(gateway, request, peer, access).await;
    }
    let span =
        slipway_telemetry::server_span(request.method(), request.uri().path(), request.headers());
    let response = handle_request(gateway, request, peer, access).instrument(span.clone()).await;
    slipway_telemetry::record_status(&span, response.status());
    response
}

/// By which port a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAccess {
    /// The one for everybody.
    Public,
    /// The one for those who show the token.
    Private,
}

/// A request as it came.
#[derive(Debug)]
pub struct ReceivedRequest {
    parts: Parts,
    body: ClientBody,
    received_at: Instant,
    access: PortAccess,
}

impl ReceivedRequest {
    fn new(parts: Parts, body: Incoming, peer: IpAddr, access: PortAccess) -> Self {
        Self { parts, body: ClientBody::new(body, peer), received_at: Instant::now(), access }
    }

    /// Its head and its body.
    pub fn into_parts(self) -> (Parts, ClientBody) {
        (self.parts, self.body)
    }
}

/// Answers one request.
pub async fn handle_request(
    gateway: Arc<GatewayContext>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: PortAccess,
) -> Response<AnswerBody> {
    let grpc = grpc::is_grpc(request.headers());
    let (mut parts, body) = request.into_parts();
    if access == PortAccess::Private {
        if let Some(refusal) = reserved::refuse_without_token(&gateway, &parts) {
            return refusal.into_response(grpc);
        }
        // The token is the namespace's: no model server gets to see it.
        parts.headers.remove(AUTHORIZATION);
    }
    let authority = parts.uri.host().or_else(|| parts.headers.get(HOST)?.to_str().ok());
    let path = parts.uri.path();
    let target =
        select_target(&gateway.router.table(), &gateway.settings.namespace, authority, path, grpc);
    match target {
        RouteTarget::Model(route) => {
            forward_to_model(gateway, route, ReceivedRequest::new(parts, body, peer, access)).await
        }
        RouteTarget::Gateway if grpc => gateway_info::grpc_response(&gateway, path),
        RouteTarget::Gateway => gateway_info::rest_response(&gateway, &parts.method, path),
        RouteTarget::ByMessage => {
            let received = ReceivedRequest::new(parts, body, peer, access);
            // Boxed, as it is rare: the future of all others would carry its room along.
            Box::pin(grpc_routing::route_by_message(gateway, received)).await
        }
        RouteTarget::Refused(refusal) => {
            gateway.metrics.unrouted.inc();
            refusal.into_response(grpc)
        }
    }
}

/// Answers a request that is for a ModelDeployment.
async fn forward_to_model(
    gateway: Arc<GatewayContext>,
    route: RouteMatch,
    received: ReceivedRequest,
) -> Response<AnswerBody> {
    let grpc = grpc::is_grpc(&received.parts.headers);
    let reserved = reserved::reserved_operation(&route, &received.parts, grpc);
    if reserved.is_some() && received.access == PortAccess::Public {
        return RequestRefusal::Private.into_response(grpc);
    }
    if reserved == Some(ReservedOperation::Feedback) {
        // Boxed, as all that is rare.
        return Box::pin(feedback::handle_feedback(&gateway, &route.model, received)).await;
    }
    let ReceivedRequest { parts, mut body, received_at: at, access } = received;
    if let Some(answer) = model_health(&route, &parts) {
        return answer;
    }
    let mut client = ClientCall::start(&route.model.metrics);
    let shares = &route.model.shares;
    let Some(place) = shares.admit(body.peer()) else {
        return reject_request(client, RequestRefusal::Overloaded, grpc);
    };
    body.hold_permit(&shares.uploads, &place);
    client.hold_permit(place);
    if parts.method == Method::CONNECT {
        return reject_request(client, RequestRefusal::Method, grpc);
    }
    let deadline = request_deadline(at, route.model.config.timeout, &parts.headers);
    let mut request =
        match BufferedRequest::read(&gateway.settings, &route.model, parts, body, deadline).await {
            Ok(request) => request,
            Err(refusal) => return reject_request(client, refusal, grpc),
        };
    // Weights may have changed while the body came in.
    let current = gateway.router.table().models.get(&route.model.config.name).cloned();
    let model =
        current.filter(|model| model.config.uid == route.model.config.uid).unwrap_or(route.model);
    if model.config.caching {
        request.set_affinity();
    }
    // Who looks at a preview is no evidence, whatever becomes of the answer.
    request.is_prediction &= !route.preview;
    if access == PortAccess::Private {
        request.private = true;
        if let Some(proof) = reserved::access_proof(&gateway, &model, reserved) {
            request.set_access_proof(proof);
        }
    }
    request.set_limit_headers(&model.limits);
    request.set_pod_settings(&model.config.pod_settings);
    let (request, pace) = (Arc::new(request), model.timing());
    dispatch_to_arm(
        ProxyExchange { gateway, model, request, client, deadline, timing: pace },
        route.preview,
    )
    .await
}

fn reject_request(
    mut client: ClientCall,
    refusal: RequestRefusal,
    grpc: bool,
) -> Response<AnswerBody> {
    let reason = match refusal {
        RequestRefusal::Overloaded => RejectReason::Overloaded,
        RequestRefusal::BodyTimeout | RequestRefusal::BodyTooSlow => RejectReason::BodyTimeout,
        RequestRefusal::BodyTooLarge => RejectReason::BodyTooLarge,
        RequestRefusal::NoRevision => RejectReason::NoRevision,
        RequestRefusal::BadBody => RejectReason::ClientLeft,
        _ => RejectReason::BadRequest,
    };
    client.reject(refusal.outcome(), reason);
    refusal.into_response(grpc)
}

/// Health of the ModelDeployment itself; probes are no evidence, so they are answered here and not
/// counted.
fn model_health(route: &RouteMatch, parts: &Parts) -> Option<Response<AnswerBody>> {
    let well = match parts.uri.path() {
        "/v2/health/live" => true,
        "/v2/health/ready" => {
            let serves = |arm: Option<&Arc<Arm>>| arm.is_some_and(|arm| !arm.endpoints.is_empty());
            let model = &route.model;
            if route.preview {
                serves(model.preview_arm())
            } else {
                serves(model.stable()) || serves(model.spillover_arm())
            }
        }
        _ => return None,
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Some(RequestRefusal::Method.into_response(false));
    }
    Some(gateway_info::health_response(well, well))
}

/// Chooses the arm and the way to it.
async fn dispatch_to_arm(job: ProxyExchange, preview: bool) -> Response<AnswerBody> {
    let model = Arc::clone(&job.model);
    if preview {
        // Who looks at a preview wants to see the candidate as it is: no shield, and nothing for
        // the brake to hear.
        return match model.preview_arm() {
            Some(arm) => send_directly(job, Arc::clone(arm), false).await,
            None => job.reject(RequestRefusal::NoRevision),
        };
    }
    let shield = model.config.shield.enabled;
    let stable = model.stable();
    if !job.request.is_replayable() && shield && model.has_candidate() {
        // It cannot be replayed, so it is kept from the candidate: the shield never promises what
        // it cannot do.
        model.metrics.unshielded.inc();
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
        // Boxed, as they are for a few: the futures of all others would carry their room along, and
        // are moved more than once before they run.
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

/// Sends a request to stable. While no pod of stable takes it, a candidate that has traffic anyway
/// does: the request has not run, and there is nothing to protect it from that is worse than no
/// answer. With the next request it is stable's turn again.
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
        stable.metrics.shielded.inc();
    }
    candidate.metrics.spilled.inc();
    // The candidate is made for its share and not for stable's: what it fails of that is counted
    // and does not take it out.
    let (result, mut call) = call_arm(&mut job, &candidate, false, RetryPolicy::Broken).await;
    if !result.as_ref().is_err_and(|failure| *failure == ArmFailure::Unreachable) {
        return job.complete(result, call, None);
    }
    call.close(RequestOutcome::Unavailable);
    candidate.metrics.shielded.inc();
    send_directly(job, stable, true).await
}

/// Sends a request to an arm with nobody behind it.
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

impl ProxyExchange {
    /// Answers a request that reached no arm.
    fn reject(self, refusal: RequestRefusal) -> Response<AnswerBody> {
        reject_request(self.client, refusal, self.request.grpc)
    }

    /// Answers a request whose arm gave no answer.
    fn refuse(mut self, refusal: RequestRefusal) -> Response<AnswerBody> {
        self.client.close(refusal.outcome());
        refusal.into_response(self.request.grpc)
    }

    /// Passes an arm's answer on, or tells the client that there is none.
    fn complete(
        self,
        result: Result<Response<DownloadBody>, ArmFailure>,
        mut call: ArmCall,
        shielded: Option<&Arm>,
    ) -> Response<AnswerBody> {
        match result {
            Ok(response) => {
                let arm = Arc::clone(call.arm());
                let (parts, body) = response.into_parts();
                let head = ResponseHead::from_response(parts.status, &parts.headers);
                call.set_cached(self.model.config.caching && headers::is_cached(&parts.headers));
                let body = StreamingBody::new(body, self.deadline, call, self.client, head);
                let of = AnswerContext {
                    gateway: &self.gateway,
                    model: &self.model,
                    request: &self.request,
                };
                finish_response(
                    Response::from_parts(parts, AnswerBody::Streaming(Box::new(body))),
                    of,
                    &arm,
                    shielded,
                )
            }
            Err(failure) => {
                call.fail(failure);
                self.refuse(failure.refusal())
            }
        }
    }
}

/// What an answer is to.
#[derive(Clone, Copy)]
struct AnswerContext<'a> {
    gateway: &'a GatewayContext,
    model: &'a RoutedModel,
    request: &'a BufferedRequest,
}

/// Makes an arm's answer the gateway's: hop-by-hop headers removed, a prediction gets its id, and
/// who answered is told where the owner says so.
fn finish_response(
    mut response: Response<AnswerBody>,
    of: AnswerContext<'_>,
    arm: &Arm,
    shielded: Option<&Arm>,
) -> Response<AnswerBody> {
    *response.version_mut() = Version::HTTP_11;
    let well = response.status().is_success();
    let headers = response.headers_mut();
    headers::strip_hop_by_hop(headers);
    // A pod does not say what the gateway did, nor who it is.
    for name in [headers::SHIELDED, headers::REVISION, headers::PREDICTION_ID] {
        headers.remove(name);
    }
    let report = headers.remove(headers::PREDICTION);
    let well = well
        && grpc::status_outcome(headers).is_none_or(|outcome| outcome == RequestOutcome::Success);
    if of.request.is_prediction
        && well
        && let Some(id) =
            feedback::issue_prediction_id(of.gateway, of.model, &arm.revision, report.as_ref())
    {
        headers.insert(headers::PREDICTION_ID, id);
    }
    if of.request.private || of.model.config.reveals_revision {
        headers.insert(headers::REVISION, arm.header.clone());
        if let Some(candidate) = shielded {
            headers.insert(headers::SHIELDED, candidate.header.clone());
        }
    }
    response
}
