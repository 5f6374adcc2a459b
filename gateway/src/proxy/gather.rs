//! Reads an arm's answer before the client receives any of it.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::response::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::outcome::RequestOutcome;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::{Arm, RoutedModel};
use slipway_gateway_routing::settings::ProcessSettings;
use slipway_gateway_upstream::buffer::{BodyBuffer, BodyPrefix, BufferedBody};
use slipway_gateway_upstream::download::DownloadBody;
use tokio::time::{Instant, timeout_at};

use super::answer::ResponseHead;
use super::arm::{RetryPolicy, send_to_arm};
use super::buffered_request::BufferedRequest;
use super::call_guards::ArmCall;

/// An answer of the candidate, as far as it was read before the client receives any of it.
pub enum GatheredAnswer {
    /// The complete answer.
    Complete(Parts, BufferedBody, ResponseHead),
    /// Its beginning: it is too large to buffer, or an event stream.
    Partial(Parts, BodyPrefix, DownloadBody, ResponseHead),
}

/// How a request ended, as far as its answer was read.
pub fn outcome_of(gathered: &Result<GatheredAnswer, ArmFailure>) -> RequestOutcome {
    match gathered {
        Ok(GatheredAnswer::Complete(_, _, head) | GatheredAnswer::Partial(_, _, _, head)) => {
            head.outcome
        }
        Err(failure) => failure.outcome(),
    }
}

/// Like [`outcome_of`], but depending on the time for a request without an answer.
pub fn timed_outcome(
    call: &ArmCall,
    gathered: &Result<GatheredAnswer, ArmFailure>,
) -> RequestOutcome {
    match gathered {
        Err(failure) => call.failure_outcome(*failure),
        Ok(_) => outcome_of(gathered),
    }
}

/// Whether the arm failed.
pub fn is_failed(gathered: &Result<GatheredAnswer, ArmFailure>) -> bool {
    outcome_of(gathered).is_failure()
}

/// Whether outputs of the answer contain a NaN.
pub fn holds_nan(gathered: &Result<GatheredAnswer, ArmFailure>) -> bool {
    matches!(gathered, Ok(GatheredAnswer::Complete(_, _, head) | GatheredAnswer::Partial(_, _, _, head)) if head.has_nan)
}

/// Sends the request to an arm and waits until the deadline. The answer is complete, or a stream
/// because of its type or size, or because it is incomplete at a certain time.
///
/// # Errors
/// When there is no answer.
pub async fn gather_from_arm(
    gateway: &GatewayContext,
    model: &RoutedModel,
    plan: &BufferedRequest,
    arm: &Arc<Arm>,
    deadline: Instant,
    retry: RetryPolicy,
    whole_by: Option<Instant>,
) -> Result<GatheredAnswer, ArmFailure> {
    let asked = async {
        gather_answer(
            &gateway.settings,
            model,
            send_to_arm(gateway, model, arm, plan, deadline, retry).await?,
            whole_by,
        )
        .await
    };
    timeout_at(deadline, asked).await.unwrap_or(Err(ArmFailure::Deadline))
}

/// Reads the answer completely, if its type and size allow it.
///
/// # Errors
/// When it is truncated.
pub async fn gather_answer(
    settings: &ProcessSettings,
    model: &RoutedModel,
    response: Response<DownloadBody>,
    whole_by: Option<Instant>,
) -> Result<GatheredAnswer, ArmFailure> {
    let (parts, mut body) = response.into_parts();
    let mut head = ResponseHead::from_response(parts.status, &parts.headers);
    let (max, size) = (settings.max_buffered_response, body.size_hint());
    if head.is_event_stream || size.lower() > max as u64 {
        return Ok(GatheredAnswer::Partial(parts, BodyPrefix::default(), body, head));
    }
    let mut buffer = BodyBuffer::new(&model.shares.memory, size.exact());
    let mut trailers = None;
    loop {
        let frame = match whole_by {
            None => body.frame().await,
            Some(time) => match timeout_at(time, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    return Ok(GatheredAnswer::Partial(
                        parts,
                        BodyPrefix::new(buffer, Bytes::new()),
                        body,
                        head,
                    ));
                }
            },
        };
        let Some(frame) = frame else { break };
        match frame.map_err(|_| ArmFailure::Broken)?.into_data() {
            Ok(mut data) => {
                let left = if buffer.length() + data.len() <= max {
                    buffer.push(&data).len()
                } else {
                    data.len()
                };
                if left > 0 {
                    let unkept = data.split_off(data.len() - left);
                    return Ok(GatheredAnswer::Partial(
                        parts,
                        BodyPrefix::new(buffer, unkept),
                        body,
                        head,
                    ));
                }
            }
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                if let Some(outcome) = trailers.as_ref().and_then(grpc::status_outcome) {
                    head.outcome = outcome;
                }
            }
        }
    }
    Ok(GatheredAnswer::Complete(parts, buffer.finish(trailers), head))
}
