//! The HTTP API: the account, single requests, metrics, and the rate.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::account::{RequestAccount, RequestRecord};
use crate::summary::{AccountSummary, RequestLine};
use crate::worker::LoadPace;

/// Number of records that are copied under the lock at once.
const CHUNK: usize = 4096;
/// Lines of `/account/requests` without a `limit`.
const DEFAULT_LIMIT: usize = 100_000;
const MOST_RATE: f64 = 100_000.0;

/// The state of the handlers.
pub(crate) struct ApiContext {
    pub(crate) run: String,
    pub(crate) target: String,
    pub(crate) model: String,
    pub(crate) account: Arc<RequestAccount>,
    pub(crate) pace: Arc<watch::Sender<LoadPace>>,
}

pub(crate) fn api_router(context: Arc<ApiContext>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/account", get(get_account))
        .route("/account/requests", get(get_requests))
        .route("/metrics", get(get_metrics))
        .route("/reset", post(reset_account))
        .route("/rate", post(set_rate))
        .with_state(context)
}

#[derive(Serialize)]
struct AccountResponse<'a> {
    run: &'a str,
    target: &'a str,
    model: &'a str,
    rate: f64,
    stopped: bool,
    #[serde(flatten)]
    summary: AccountSummary,
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn error_response(status: StatusCode, message: &str) -> Response {
    json_response(status, &serde_json::json!({ "error": message }))
}

async fn get_account(State(context): State<Arc<ApiContext>>) -> Response {
    let pace = *context.pace.borrow();
    let answer = AccountResponse {
        run: &context.run,
        target: &context.target,
        model: &context.model,
        rate: if let LoadPace::Rate(rate) = pace { rate } else { 0.0 },
        stopped: pace == LoadPace::Stopped,
        summary: AccountSummary::from_account(&context.account),
    };
    json_response(StatusCode::OK, &answer)
}

async fn get_metrics(State(context): State<Arc<ApiContext>>) -> Response {
    let text = AccountSummary::from_account(&context.account).to_prometheus_text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn reset_account(State(context): State<Arc<ApiContext>>) -> Response {
    context.account.reset();
    json_response(StatusCode::OK, &serde_json::json!({}))
}

#[derive(Deserialize)]
struct RateRequest {
    rate: f64,
}

async fn set_rate(State(context): State<Arc<ApiContext>>, body: Bytes) -> Response {
    let wanted = match serde_json::from_slice::<RateRequest>(&body) {
        Ok(RateRequest { rate }) if (0.0..=MOST_RATE).contains(&rate) => rate,
        _ => {
            return error_response(
                StatusCode::BAD_REQUEST,
                "send {\"rate\": N} with N from 0 to 100000",
            );
        }
    };
    let mut stopped = false;
    context.pace.send_if_modified(|pace| match pace {
        LoadPace::Stopped => {
            stopped = true;
            false
        }
        LoadPace::Rate(rate) => {
            *rate = wanted;
            true
        }
    });
    if stopped {
        return error_response(StatusCode::CONFLICT, "stopped for good: --max-duration is over");
    }
    json_response(StatusCode::OK, &serde_json::json!({ "rate": wanted }))
}

/// Selects single requests. Times are compared with the time of sending.
#[derive(Deserialize)]
struct RequestsQuery {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    revision: Option<String>,
    #[serde(default)]
    failed: bool,
    limit: Option<usize>,
}

impl RequestsQuery {
    fn matches_record(&self, record: &RequestRecord, names: &[String]) -> bool {
        self.since.is_none_or(|since| record.sent >= since.as_microsecond())
            && self.until.is_none_or(|until| record.sent < until.as_microsecond())
            && (!self.failed || record.outcome.is_err())
            && self
                .revision
                .as_ref()
                .is_none_or(|wanted| names.get(usize::from(record.revision)) == Some(wanted))
    }
}

/// Streams NDJSON in order of completion, a chunk at a time, so that millions of records neither
/// fill the memory nor hold the lock.
async fn get_requests(
    State(context): State<Arc<ApiContext>>,
    Query(query): Query<RequestsQuery>,
) -> Response {
    let left = query.limit.unwrap_or(DEFAULT_LIMIT);
    let stream = futures::stream::unfold(
        (context, query, 0, left),
        |(context, query, cursor, left)| async move {
            if left == 0 {
                return None;
            }
            let (records, names, next) = context.account.records(cursor, CHUNK)?;
            let wanted =
                records.iter().filter(|record| query.matches_record(record, &names)).take(left);
            let lines: Vec<_> = wanted
                .filter_map(|record| {
                    serde_json::to_string(&RequestLine::new(&context.run, record, &names)).ok()
                })
                .map(|line| line + "\n")
                .collect();
            let left = left - lines.len();
            Some((Ok::<_, Infallible>(lines.concat()), (context, query, next, left)))
        },
    );
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}
