//! Calls of gRPC at hosts that no ModelDeployment declares: their first message names the model.

use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::time::timeout_at;

use super::{
    Received,
    answer::{AnswerBody, Refusal},
    forward, grpc, own,
    plan::deadline,
};
use crate::{gateway::Gateway, select::by_model_name};

/// How long the beginning of a message may take, unless the client itself has less time: whose deadline counts is not known yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads as much of the call as names a model, and answers it as that model's ModelDeployment does.
pub async fn answer(gateway: Arc<Gateway>, mut call: Received) -> Response<AnswerBody> {
    // Whoever is waited for has a place, as have all others whose bodies are read.
    let shares = &gateway.unrouted;
    let Some(place) = shares.admit(call.body.peer()) else { return nobody(&gateway, Refusal::Overloaded) };
    call.body.hold(&shares.uploads, &place);
    let limit = deadline(call.at, PATIENCE, &call.parts.headers);
    let name = match timeout_at(limit, call.body.model_name()).await {
        Ok(Ok(name)) => name,
        Ok(Err(refusal)) => return nobody(&gateway, refusal),
        Err(_) => return nobody(&gateway, Refusal::BodyTimeout),
    };
    place.release();
    let path = call.parts.uri.path();
    if path == grpc::HEALTH_CHECK && (name.is_empty() || name == grpc::SERVICE) {
        return own::grpc(&gateway, path);
    }
    let route = std::str::from_utf8(&name).ok().and_then(|name| by_model_name(&gateway.router.table(), name));
    match route {
        Some(route) => forward(gateway, route, call).await,
        None if name.is_empty() => nobody(&gateway, Refusal::UnreadableName),
        None => nobody(&gateway, Refusal::UnknownModel),
    }
}

fn nobody(gateway: &Gateway, refusal: Refusal) -> Response<AnswerBody> {
    gateway.metrics.unrouted.inc();
    refusal.answer(true)
}
