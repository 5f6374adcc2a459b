//! gRPC calls at hosts that no ModelDeployment declares: their first message contains the model
//! name.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::select::route_by_model_name;
use tokio::time::timeout_at;

use super::answer::{AnswerBody, refusal_response};
use super::buffered_request::request_deadline;
use super::received_request::ReceivedRequest;
use super::{forward_to_model, gateway_info};

/// Time limit for the beginning of a message, unless the client's own is shorter: the
/// ModelDeployment, and so its deadline, is not known yet.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the call up to the model name, and forwards it to the ModelDeployment of that model.
pub async fn route_by_message(
    gateway: Arc<GatewayContext>,
    mut call: ReceivedRequest,
) -> Response<AnswerBody> {
    // A waiting call needs a permit, like all calls whose bodies are read.
    let shares = &gateway.unrouted_shares;
    let Some(place) = shares.admit(call.body.peer()) else {
        return refuse_unrouted(&gateway, RequestRefusal::Overloaded);
    };
    call.body.hold_permit(&shares.uploads, &place);
    let limit = request_deadline(call.received_at, MESSAGE_TIMEOUT, &call.parts.headers);
    let name = match timeout_at(limit, call.body.read_model_name()).await {
        Ok(Ok(name)) => name,
        Ok(Err(refusal)) => return refuse_unrouted(&gateway, refusal),
        Err(_) => return refuse_unrouted(&gateway, RequestRefusal::BodyTimeout),
    };
    place.release();
    let path = call.parts.uri.path();
    if path == grpc::HEALTH_CHECK && (name.is_empty() || name == grpc::SERVICE) {
        return gateway_info::grpc_response(&gateway, path);
    }
    let route = std::str::from_utf8(&name)
        .ok()
        .and_then(|name| route_by_model_name(&gateway.router.table(), name));
    match route {
        Some(route) => forward_to_model(gateway, route, call).await,
        None if name.is_empty() => refuse_unrouted(&gateway, RequestRefusal::UnreadableName),
        None => refuse_unrouted(&gateway, RequestRefusal::UnknownModel),
    }
}

fn refuse_unrouted(gateway: &GatewayContext, refusal: RequestRefusal) -> Response<AnswerBody> {
    gateway.metrics.unrouted.inc();
    refusal_response(refusal, true)
}
