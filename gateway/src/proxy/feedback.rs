//! Feedback: `POST /v2/models/{m}/feedback` on the port `private`. Ids are opened with the key of
//! the ModelDeployment, so that they cannot be forged, and each is counted by one gateway pod
//! ([`slipway_gateway_feedback`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use ring::hmac;
use slipway_contracts::paths::MODELS;
use slipway_gateway_feedback::item::{
    FeedbackItem, FeedbackRejection, FeedbackRequest, FeedbackResponse,
};
use slipway_gateway_feedback::peers::{self, GatewayPeer};
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::RoutedModel;
use slipway_prediction_id::{PredictionId, PredictionIdSealer, PredictionReport};
use tokio::time::{Instant, timeout_at};

use super::answer::{AnswerBody, json_response, refusal_response};
use super::received_request::ReceivedRequest;

/// Maximum number of items per request: they are counted on a thread that serves other requests,
/// too.
const MAX_ITEMS: usize = 10_000;
/// Maximum size of a request.
const MAX_BYTES: usize = 8 << 20;
/// Time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of gateways that are tried for one share.
const MAX_TRIES: usize = 3;
/// Proves to a gateway that another one forwards its share: a MAC of the body.
const HOP: HeaderName = HeaderName::from_static(slipway_contracts::headers::FEEDBACK_HOP);
const HOP_PURPOSE: &str = "feedback between gateways v1";

/// The time in Unix seconds.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The id of a prediction that a revision has just made, with the `report` of its pod; `None`
/// without a key.
pub fn issue_prediction_id(
    gateway: &GatewayContext,
    model: &RoutedModel,
    revision: &str,
    report: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let master = gateway.keys.master()?;
    let sealer = PredictionIdSealer::new(
        &master.derive(slipway_prediction_id::PREDICTION_ID_PURPOSE, &model.config.uid),
    )?;
    let decoded = report.and_then(|report| PredictionReport::decode(report.to_str().ok()?));
    // Servers without reports accept outcomes as feedback, but no labels.
    let report = decoded.unwrap_or_else(|| PredictionReport {
        sample: PredictionReport::random_sample(),
        labels: Vec::new(),
    });
    let seconds = unix_seconds();
    let id = sealer.seal(revision, u32::try_from(seconds).unwrap_or(u32::MAX), &report)?;
    let rows = report.labels.iter().flatten().count();
    gateway.metrics.feedback.count_predicted(&model.config.name, revision, seconds, rows);
    HeaderValue::from_str(&id).ok()
}

/// An item with its opened id, and the peers that should count it, first in rank first.
struct OpenedItem {
    id: PredictionId,
    item: FeedbackItem,
    tried: usize,
}

/// Answers a feedback request.
pub async fn handle_feedback(
    gateway: &Arc<GatewayContext>,
    model: &Arc<RoutedModel>,
    received: ReceivedRequest,
) -> Response<AnswerBody> {
    let (parts, mut body) = received.into_parts();
    if parts.method != Method::POST {
        return refusal_response(RequestRefusal::Method, false);
    }
    if parts.headers.contains_key(CONTENT_ENCODING) {
        return error_response(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send feedback without content-encoding",
        );
    }
    let Some(place) = model.shares.admit(body.peer()) else {
        return refusal_response(RequestRefusal::Overloaded, false);
    };
    body.hold_permit(&model.shares.uploads, &place);
    let read = timeout_at(Instant::now() + BODY_TIMEOUT, async {
        let mut all = BytesMut::new();
        while let Some(frame) = body.next_frame().await {
            if let Ok(data) = frame.map_err(|error| error.refusal())?.into_data() {
                if all.len() + data.len() > MAX_BYTES {
                    return Err(RequestRefusal::BodyTooLarge);
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(refusal)) => return refusal_response(refusal, false),
        Err(_) => return refusal_response(RequestRefusal::BodyTimeout, false),
    };
    let request: FeedbackRequest = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => {
            let text = format!(
                "want {{\"feedback\": [{{\"prediction_id\": \"...\", \"label\": 3}}]}} (or \"labels\" by row, or \"outcome\": {{\"name\": \"conversion\", \"value\": 1}}): {error}"
            );
            return error_response(StatusCode::BAD_REQUEST, &text);
        }
    };
    let items = request.feedback.len();
    if items > MAX_ITEMS {
        return error_response(
            StatusCode::BAD_REQUEST,
            &format!("{items} items of feedback; send at most {MAX_ITEMS} at once"),
        );
    }
    let sealers = prediction_sealers(gateway, &model.config.uid);
    if sealers.is_empty() {
        return error_response(
            StatusCode::SERVICE_UNAVAILABLE,
            "this gateway has no key yet: the operator makes the Secret slipway-keys in this namespace",
        );
    }
    let from_gateway =
        parts.headers.get(HOP).is_some_and(|proof| is_valid_hop(gateway, model, &bytes, proof));
    let summary = count_feedback(gateway, model, &sealers, request, from_gateway).await;
    place.release();
    json_response(StatusCode::OK, &serde_json::to_value(summary).unwrap_or_default())
}

fn error_response(status: StatusCode, text: &str) -> Response<AnswerBody> {
    json_response(status, &serde_json::json!({ "error": text }))
}

/// Sealers with the current key and with the previous one.
fn prediction_sealers(gateway: &GatewayContext, uid: &str) -> Vec<PredictionIdSealer> {
    let masters = [gateway.keys.master(), gateway.keys.previous_master()];
    let keys = masters
        .iter()
        .flatten()
        .map(|master| master.derive(slipway_prediction_id::PREDICTION_ID_PURPOSE, uid));
    keys.filter_map(|key| PredictionIdSealer::new(&key)).collect()
}

/// Counts the items of this gateway, and forwards those of others.
async fn count_feedback(
    gateway: &GatewayContext,
    model: &RoutedModel,
    sealers: &[PredictionIdSealer],
    request: FeedbackRequest,
    from_gateway: bool,
) -> FeedbackResponse {
    let mut summary = FeedbackResponse::default();
    let mut left = Vec::new();
    for item in request.feedback {
        match sealers.iter().find_map(|sealer| sealer.open(&item.prediction_id).ok()) {
            Some(id) => left.push(OpenedItem { id, item, tried: 0 }),
            None => reject_item(gateway, model, &mut summary, FeedbackRejection::InvalidId),
        }
    }
    while !left.is_empty() {
        let mut elsewhere: HashMap<GatewayPeer, Vec<OpenedItem>> = HashMap::new();
        for opened in left.drain(..) {
            let owner = gateway.feedback.peers.owner(opened.id.number, opened.tried);
            match owner.filter(|_| !from_gateway && opened.tried < MAX_TRIES) {
                Some(peer) => elsewhere.entry(peer).or_default().push(opened),
                None => record_item(gateway, model, &mut summary, opened),
            }
        }
        for (peer, share) in elsewhere {
            match send_to_peer(gateway, model, &peer, &share).await {
                Some(counted) => summary.append(counted),
                None => {
                    tracing::debug!(
                        gateway = peer.name,
                        "does not count its share of feedback; the next one does"
                    );
                    left.extend(
                        share
                            .into_iter()
                            .map(|opened| OpenedItem { tried: opened.tried + 1, ..opened }),
                    );
                }
            }
        }
    }
    summary
}

fn record_item(
    gateway: &GatewayContext,
    model: &RoutedModel,
    summary: &mut FeedbackResponse,
    opened: OpenedItem,
) {
    match gateway.feedback.ledger.record(
        opened.id,
        &opened.item,
        unix_seconds(),
        &model.config.outcomes,
    ) {
        Ok(counted) => {
            gateway.metrics.feedback.count_accepted(&model.config.name, &counted);
            summary.add(None);
        }
        Err(rejected) => reject_item(gateway, model, summary, rejected),
    }
}

fn reject_item(
    gateway: &GatewayContext,
    model: &RoutedModel,
    summary: &mut FeedbackResponse,
    rejected: FeedbackRejection,
) {
    gateway.metrics.feedback.count_rejected(&model.config.name, rejected);
    summary.add(Some(rejected));
}

fn hop_key(gateway: &GatewayContext, model: &RoutedModel) -> Option<hmac::Key> {
    let key = gateway.keys.derive(HOP_PURPOSE, &model.config.uid)?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

fn is_valid_hop(
    gateway: &GatewayContext,
    model: &RoutedModel,
    body: &[u8],
    proof: &HeaderValue,
) -> bool {
    let proof = proof.to_str().ok().and_then(|proof| hex::decode(proof).ok());
    let (Some(key), Some(proof)) = (hop_key(gateway, model), proof) else { return false };
    hmac::verify(&key, body, &proof).is_ok()
}

/// Forwards a share to another gateway; `None` when that does not count it.
async fn send_to_peer(
    gateway: &GatewayContext,
    model: &RoutedModel,
    peer: &GatewayPeer,
    share: &[OpenedItem],
) -> Option<FeedbackResponse> {
    #[derive(serde::Serialize)]
    struct PeerRequest<'a> {
        feedback: Vec<&'a FeedbackItem>,
    }
    let share = PeerRequest { feedback: share.iter().map(|opened| &opened.item).collect() };
    let body = Bytes::from(serde_json::to_vec(&share).ok()?);
    let proof = hex::encode(hmac::sign(&hop_key(gateway, model)?, &body));
    let path = format!("{MODELS}{}/feedback", model.config.claims.model_name);
    let host = format!("{}.{}", model.config.name, gateway.settings.namespace);
    let token = gateway.keys.authorization()?;
    let headers =
        [(HOP, HeaderValue::from_str(&proof).ok()?), (http::header::AUTHORIZATION, token)];
    peers::post_feedback(peer.addr, &host, &path, headers, body).await
}
