//! A receiver of callbacks: stores every callback of jobs unchanged, and returns them for checks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use jiff::Timestamp;
use serde::Serialize;

/// Largest number of stored callbacks; the oldest are removed.
const MAX_CALLBACKS: usize = 10_000;
/// Largest size of one in bytes.
const MAX_BODY: usize = 64 << 10;
/// The headers of a Standard Webhooks signature.
const SIGNATURE_HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// A callback, unchanged.
#[derive(Debug, Clone, Serialize)]
struct StoredCallback {
    received_at: Timestamp,
    /// In the order id, timestamp, signature; empty where one was missing.
    signature: [String; 3],
    body: String,
}

/// The stored callbacks.
#[derive(Debug, Default)]
pub(crate) struct CallbackStore(Mutex<VecDeque<StoredCallback>>);

/// `POST` stores one, `GET` returns all as NDJSON.
pub(crate) fn callback_router(callbacks: Arc<CallbackStore>) -> Router {
    let route = post(receive_callback).get(list_callbacks).layer(DefaultBodyLimit::max(MAX_BODY));
    Router::new().route("/callbacks", route).with_state(callbacks)
}

async fn receive_callback(
    State(callbacks): State<Arc<CallbackStore>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let Ok(body) = String::from_utf8(body.into()) else { return StatusCode::BAD_REQUEST };
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let callback = StoredCallback {
        received_at: Timestamp::now(),
        signature: SIGNATURE_HEADERS.map(text),
        body,
    };
    let Ok(mut kept) = callbacks.0.lock() else { return StatusCode::INTERNAL_SERVER_ERROR };
    if kept.len() == MAX_CALLBACKS {
        kept.pop_front();
    }
    kept.push_back(callback);
    StatusCode::NO_CONTENT
}

async fn list_callbacks(State(callbacks): State<Arc<CallbackStore>>) -> impl IntoResponse {
    let kept = callbacks.0.lock().map(|kept| kept.clone()).unwrap_or_default();
    let lines: String = kept
        .iter()
        .filter_map(|it| serde_json::to_string(it).ok())
        .map(|line| line + "\n")
        .collect();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], lines)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, Response};
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn what_came_is_handed_out_as_it_came() {
        let router = callback_router(Arc::default());
        let send = async |request: Request<Body>| -> Response<Body> {
            router.clone().oneshot(request).await.unwrap()
        };
        let call = Request::post("/callbacks")
            .header("webhook-id", "a")
            .header("webhook-signature", "v1,x");
        let answer = send(call.body(Body::from(r#"{"id": "a"}"#)).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let large =
            send(Request::post("/callbacks").body(Body::from(vec![b'x'; MAX_BODY + 1])).unwrap())
                .await;
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let all = send(Request::get("/callbacks").body(Body::empty()).unwrap()).await;
        let text = axum::body::to_bytes(all.into_body(), 1 << 20).await.unwrap();
        let lines: Vec<Value> =
            text.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["signature"], json!(["a", "", "v1,x"]));
        assert_eq!(lines[0]["body"], r#"{"id": "a"}"#);
    }
}
