//! A request that has been read, and the answer to its client.

use std::sync::Arc;

use http::{Response, Version};
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::latency::RequestTiming;
use slipway_gateway_policy::outcome::{RejectReason, RequestOutcome};
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::{Arm, RoutedModel};
use slipway_gateway_upstream::download::DownloadBody;
use tokio::time::Instant;

use super::answer::{AnswerBody, ResponseHead, StreamingBody, refusal_response};
use super::buffered_request::BufferedRequest;
use super::call_guards::{ArmCall, ClientCall};
use super::{feedback, headers};

/// A request that has been read, on its way to an arm.
#[derive(Debug)]
pub struct ProxyExchange {
    pub(super) gateway: Arc<GatewayContext>,
    pub(super) model: Arc<RoutedModel>,
    pub(super) request: Arc<BufferedRequest>,
    pub(super) client: ClientCall,
    pub(super) deadline: Instant,
    pub(super) timing: RequestTiming,
}

impl ProxyExchange {
    /// Answers a request that reached no arm.
    pub(super) fn reject(self, refusal: RequestRefusal) -> Response<AnswerBody> {
        reject_request(self.client, refusal, self.request.grpc)
    }

    /// Answers a request whose arm gave no answer.
    pub(super) fn refuse(mut self, refusal: RequestRefusal) -> Response<AnswerBody> {
        self.client.close(refusal.outcome());
        refusal_response(refusal, self.request.grpc)
    }

    /// Forwards an arm's answer, or answers that there is none.
    pub(super) fn complete(
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

/// Answers a request that reached no arm.
pub(super) fn reject_request(
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
    refusal_response(refusal, grpc)
}

/// The request that an answer belongs to.
#[derive(Clone, Copy)]
pub(super) struct AnswerContext<'a> {
    pub(super) gateway: &'a GatewayContext,
    pub(super) model: &'a RoutedModel,
    pub(super) request: &'a BufferedRequest,
}

/// Prepares an arm's answer for the client: removes hop-by-hop headers, adds the id of a
/// prediction, and adds the revision if the spec reveals it.
pub(super) fn finish_response(
    mut response: Response<AnswerBody>,
    of: AnswerContext<'_>,
    arm: &Arm,
    shielded: Option<&Arm>,
) -> Response<AnswerBody> {
    *response.version_mut() = Version::HTTP_11;
    let well = response.status().is_success();
    let headers = response.headers_mut();
    headers::strip_hop_by_hop(headers);
    // Only the gateway sets these headers, so those of a pod are removed.
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
