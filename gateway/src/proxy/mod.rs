//! One client request from its head to its answer.

pub mod answer;
pub mod arm;
pub mod buffered_request;
pub mod call_guards;
pub mod dispatch;
pub mod exchange;
pub mod feedback;
pub mod gateway_info;
pub mod gather;
pub mod grpc_routing;
pub mod headers;
pub mod received_request;
pub mod replay_budget;
pub mod reserved;
pub mod shield;
pub mod witness;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use slipway_chassis::telemetry;
use slipway_contracts::paths;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::Arm;
use slipway_gateway_routing::select::{RouteMatch, RouteTarget, select_target};
use tracing::Instrument as _;

use self::answer::{AnswerBody, refusal_response};
use self::buffered_request::{BufferedRequest, request_deadline};
use self::call_guards::ClientCall;
use self::dispatch::dispatch_to_arm;
use self::exchange::{ProxyExchange, reject_request};
use self::received_request::{PortAccess, ReceivedRequest};
use self::reserved::ReservedOperation;

/// Answers one request, within a span of it when tracing is on.
pub async fn handle_traced(
    gateway: Arc<GatewayContext>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: PortAccess,
) -> Response<AnswerBody> {
    if !telemetry::enabled() {
        return handle_request(gateway, request, peer, access).await;
    }
    let span = telemetry::server_span(request.method(), request.uri().path(), request.headers());
    let response = handle_request(gateway, request, peer, access).instrument(span.clone()).await;
    telemetry::record_status(&span, response.status());
    response
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
            return refusal_response(refusal, grpc);
        }
        // The token belongs to the namespace: model servers must not see it.
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
            // Boxed because it is rare: otherwise the futures of all other requests would be
            // larger.
            Box::pin(grpc_routing::route_by_message(gateway, received)).await
        }
        RouteTarget::Refused(refusal) => {
            gateway.metrics.unrouted.inc();
            refusal_response(refusal, grpc)
        }
    }
}

/// Answers a request for a ModelDeployment.
async fn forward_to_model(
    gateway: Arc<GatewayContext>,
    route: RouteMatch,
    received: ReceivedRequest,
) -> Response<AnswerBody> {
    let grpc = grpc::is_grpc(&received.parts.headers);
    let reserved = reserved::reserved_operation(&route, &received.parts, grpc);
    if reserved.is_some() && received.access == PortAccess::Public {
        return refusal_response(RequestRefusal::Private, grpc);
    }
    if reserved == Some(ReservedOperation::Feedback) {
        // Boxed because it is rare.
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
    // Weights may have changed while the body arrived.
    let current = gateway.router.table().models.get(&route.model.config.name).cloned();
    let model =
        current.filter(|model| model.config.uid == route.model.config.uid).unwrap_or(route.model);
    if model.config.caching {
        request.set_affinity();
    }
    // Preview requests are no evidence, so their answers get no prediction id.
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

/// Health of the ModelDeployment itself. Probes are no evidence, so they are answered here and not
/// counted.
fn model_health(route: &RouteMatch, parts: &Parts) -> Option<Response<AnswerBody>> {
    let well = match parts.uri.path() {
        paths::SERVER_LIVE => true,
        paths::SERVER_READY => {
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
        return Some(refusal_response(RequestRefusal::Method, false));
    }
    Some(gateway_info::health_response(well, well))
}
