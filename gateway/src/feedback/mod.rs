//! Feedback: `POST /v2/models/{m}/feedback` on the port `private`. Ids are opened with the key of the ModelDeployment, so that nobody invents them, and each is
//! counted by one gateway pod, which remembers it: the first in rank of those that are there (rendezvous hashing). A pod that is replaced takes its memory
//! with it, so an id may count twice then, and no more often.

mod book;
mod outcomes;
mod peers;
mod windows;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header::CONTENT_ENCODING};
use ring::hmac;
use slipway_prediction_id::{PredictionId, Report, Sealer};
use tokio::time::{Instant, timeout_at};

pub use self::{
    book::{Book, Item, Limits, Outcome, Rejected, Request, Summary},
    outcomes::Outcomes,
    peers::{Peer, Peers, peers_of},
};
use crate::{
    gateway::Gateway,
    model::Model,
    proxy::{
        Received,
        answer::{AnswerBody, Refusal, json},
    },
};

/// Items of one request: they are counted on a thread that serves others too.
const MAX_ITEMS: usize = 10_000;
/// Bytes of one request.
const MAX_BYTES: usize = 8 << 20;
/// Time for a body to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often another gateway is asked to count what the one before did not.
const TRIES: usize = 3;
/// Proves to a gateway that another one sends its share: a MAC of the body.
const HOP: HeaderName = HeaderName::from_static("x-slipway-feedback-hop");
const HOP_PURPOSE: &str = "feedback between gateways v1";

/// What a gateway knows for feedback.
#[derive(Debug)]
pub struct Feedback {
    /// What was counted already.
    pub book: Book,
    /// The other gateways of the namespace.
    pub peers: Peers,
}

/// The time in Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The id of a prediction that a revision has made now, of which its pod reports `report`; none without a key.
pub fn issue(gateway: &Gateway, model: &Model, revision: &str, report: Option<&HeaderValue>) -> Option<HeaderValue> {
    let master = gateway.keys.master()?;
    let sealer = Sealer::new(&master.derive(slipway_prediction_id::PURPOSE, &model.config.uid))?;
    let told = report.and_then(|report| Report::decode(report.to_str().ok()?));
    // Servers that report nothing have outcomes as feedback, and no labels.
    let report = told.unwrap_or_else(|| Report { sample: Report::random_sample(), labels: Vec::new() });
    let seconds = now();
    let id = sealer.seal(revision, u32::try_from(seconds).unwrap_or(u32::MAX), &report)?;
    let rows = report.labels.iter().flatten().count();
    gateway.metrics.outcomes.predicted(&model.config.name, revision, seconds, rows);
    HeaderValue::from_str(&id).ok()
}

/// An item whose id was opened, and the peers that should count it, the first in rank first.
struct Opened {
    id: PredictionId,
    item: Item,
    tried: usize,
}

/// Answers a request.
pub async fn answer(gateway: &Arc<Gateway>, model: &Arc<Model>, received: Received) -> Response<AnswerBody> {
    let (parts, mut body) = received.into_parts();
    if parts.method != Method::POST {
        return Refusal::Method.answer(false);
    }
    if parts.headers.contains_key(CONTENT_ENCODING) {
        return wrong(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send feedback without content-encoding");
    }
    let Some(place) = model.shares.admit(body.peer()) else { return Refusal::Overloaded.answer(false) };
    body.hold(&model.shares.uploads, &place);
    let read = timeout_at(Instant::now() + PATIENCE, async {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| error.refusal())?.into_data() {
                if all.len() + data.len() > MAX_BYTES {
                    return Err(Refusal::BodyTooLarge);
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(refusal)) => return refusal.answer(false),
        Err(_) => return Refusal::BodyTimeout.answer(false),
    };
    let request: Request = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => {
            let text = format!(
                "want {{\"feedback\": [{{\"prediction_id\": \"...\", \"label\": 3}}]}} (or \"labels\" by row, or \"outcome\": {{\"name\": \"conversion\", \"value\": 1}}): {error}"
            );
            return wrong(StatusCode::BAD_REQUEST, &text);
        }
    };
    let items = request.feedback.len();
    if items > MAX_ITEMS {
        return wrong(StatusCode::BAD_REQUEST, &format!("{items} items of feedback; send at most {MAX_ITEMS} at once"));
    }
    let sealers = sealers(gateway, &model.config.uid);
    if sealers.is_empty() {
        return wrong(
            StatusCode::SERVICE_UNAVAILABLE,
            "this gateway has no key yet: the operator makes the Secret slipway-keys in this namespace",
        );
    }
    let from_gateway = parts.headers.get(HOP).is_some_and(|proof| is_hop(gateway, model, &bytes, proof));
    let summary = count(gateway, model, &sealers, request, from_gateway).await;
    place.release();
    json(StatusCode::OK, &serde_json::to_value(summary).unwrap_or_default())
}

fn wrong(status: StatusCode, text: &str) -> Response<AnswerBody> {
    json(status, &serde_json::json!({ "error": text }))
}

/// By the key that is, and by the one that was until lately.
fn sealers(gateway: &Gateway, uid: &str) -> Vec<Sealer> {
    let masters = [gateway.keys.master(), gateway.keys.previous()];
    let keys = masters.iter().flatten().map(|master| master.derive(slipway_prediction_id::PURPOSE, uid));
    keys.filter_map(|key| Sealer::new(&key)).collect()
}

/// Counts what is this gateway's to count, and has others count theirs.
async fn count(gateway: &Gateway, model: &Model, sealers: &[Sealer], request: Request, from_gateway: bool) -> Summary {
    let mut summary = Summary::default();
    let mut left = Vec::new();
    for item in request.feedback {
        match sealers.iter().find_map(|sealer| sealer.open(&item.prediction_id).ok()) {
            Some(id) => left.push(Opened { id, item, tried: 0 }),
            None => reject(gateway, model, &mut summary, Rejected::InvalidId),
        }
    }
    while !left.is_empty() {
        let mut elsewhere: HashMap<Peer, Vec<Opened>> = HashMap::new();
        for opened in left.drain(..) {
            let owner = gateway.feedback.peers.owner(opened.id.number, opened.tried);
            match owner.filter(|_| !from_gateway && opened.tried < TRIES) {
                Some(peer) => elsewhere.entry(peer).or_default().push(opened),
                None => record(gateway, model, &mut summary, opened),
            }
        }
        for (peer, share) in elsewhere {
            match send(gateway, model, &peer, &share).await {
                Some(counted) => summary.append(counted),
                None => {
                    tracing::debug!(gateway = peer.name, "does not count its share of feedback; the next one does");
                    left.extend(share.into_iter().map(|opened| Opened { tried: opened.tried + 1, ..opened }));
                }
            }
        }
    }
    summary
}

fn record(gateway: &Gateway, model: &Model, summary: &mut Summary, opened: Opened) {
    match gateway.feedback.book.record(opened.id, &opened.item, now(), &model.config.outcomes) {
        Ok(counted) => {
            gateway.metrics.outcomes.count(&model.config.name, &counted);
            summary.add(None);
        }
        Err(rejected) => reject(gateway, model, summary, rejected),
    }
}

fn reject(gateway: &Gateway, model: &Model, summary: &mut Summary, rejected: Rejected) {
    gateway.metrics.outcomes.reject(&model.config.name, rejected);
    summary.add(Some(rejected));
}

fn hop_key(gateway: &Gateway, model: &Model) -> Option<hmac::Key> {
    let key = gateway.keys.derive(HOP_PURPOSE, &model.config.uid)?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

fn is_hop(gateway: &Gateway, model: &Model, body: &[u8], proof: &HeaderValue) -> bool {
    let proof = proof.to_str().ok().and_then(|proof| hex::decode(proof).ok());
    let (Some(key), Some(proof)) = (hop_key(gateway, model), proof) else { return false };
    hmac::verify(&key, body, &proof).is_ok()
}

/// Has another gateway count its share; none when it does not.
async fn send(gateway: &Gateway, model: &Model, peer: &Peer, share: &[Opened]) -> Option<Summary> {
    #[derive(serde::Serialize)]
    struct Share<'a> {
        feedback: Vec<&'a Item>,
    }
    let share = Share { feedback: share.iter().map(|opened| &opened.item).collect() };
    let body = Bytes::from(serde_json::to_vec(&share).ok()?);
    let proof = hex::encode(hmac::sign(&hop_key(gateway, model)?, &body));
    let path = format!("/v2/models/{}/feedback", model.config.claims.model_name);
    let host = format!("{}.{}", model.config.name, gateway.settings.namespace);
    let token = gateway.keys.authorization()?;
    let headers = [(HOP, HeaderValue::from_str(&proof).ok()?), (http::header::AUTHORIZATION, token)];
    peers::post(peer.addr, &host, &path, headers, body).await
}
