//! `POST /v2/models/{m}/infer`, from the body to the answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_predict::models::LoadedModel;
use slipway_runtime_predict::predictor::Prediction;
use slipway_runtime_protocol::{HEADER_LENGTH, InferRequest, NAN_OUTPUTS};

use super::body::{self, ContentEncoding};
use super::call::{InferCall, RequestGuard};
use super::error::ApiError;
use super::{
    AppState, FullResponse, OFFLOAD_BYTES, PREDICTION_HEADER, bytes_response, compress,
    error_response, features, parse_off_thread,
};

const TIMEOUT_HEADER: &str = slipway_contracts::headers::REQUEST_TIMEOUT_MS;

/// Answers one inference request.
pub(super) async fn handle_infer(
    app: &AppState,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> FullResponse {
    let call = InferCall::begin(app.args.request_timeout());
    let counting = RequestGuard::begin(&app.predictor.metrics, &call);
    let answer = match process_infer(app, model, version, request, &call).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(status = error.status().as_u16(), %error, "refused");
            error_response(&error)
        }
    };
    counting.finish(answer.status().as_u16());
    answer
}

async fn process_infer(
    app: &AppState,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
    call: &InferCall,
) -> Result<FullResponse, ApiError> {
    let (head, incoming) = request.into_parts();
    let limit = app.args.request_time_limit(requested_timeout(&head.headers)?);
    app.activity.expect_end(call.started_at() + limit);
    let expired = |limit: Duration| ApiError::Deadline(limit.as_millis());
    let work = async {
        let model = app.find_model(model, version).await?;
        call.set_model(&model);
        let model = model.as_ref();
        let parsed = read_request(app, model, &head, incoming).await?;
        // The client's timeout in the body can only shorten the limit.
        let own = parsed.timeout.map_or(limit, |own| own.min(limit));
        let deadline = call.started_at() + own;
        let answer = run_prediction(app, model, parsed, deadline);
        let answer = if own < limit {
            Box::pin(tokio::time::timeout_at(deadline.into(), answer)).await
        } else {
            Ok(answer.await)
        };
        match answer {
            // The worker and this timer may detect the timeout at the same time; the client
            // receives the same error from both.
            Err(_) | Ok(Err(PredictError::DeadlineExceeded(_))) => Err(expired(own)),
            Ok(answer) => Ok(answer?),
        }
    };
    let answer = tokio::time::timeout_at((call.started_at() + limit).into(), work).await;
    let answer = answer.unwrap_or_else(|_| Err(expired(limit)))?;
    match compress::accepted_encoding(&head.headers) {
        Some(encoding) => Box::pin(compress::compress_response(answer, encoding)).await,
        None => Ok(answer),
    }
}

/// The time limit that the client or the gateway requests.
fn requested_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|v| v.trim().parse::<u64>().ok()).filter(|n| *n > 0);
    let millis = millis.ok_or_else(|| {
        ApiError::bad_request(format!(
            "header {TIMEOUT_HEADER} must be a positive number of milliseconds"
        ))
    })?;
    Ok(Some(Duration::from_millis(millis)))
}

async fn read_request(
    app: &AppState,
    model: &LoadedModel,
    head: &Parts,
    incoming: Incoming,
) -> Result<InferRequest, ApiError> {
    let encoding = body::content_encoding(&head.headers)?;
    let header_length = header_length(&head.headers)?;
    let limit = app.args.body_limit(&head.headers);
    let body = body::collect_body(&head.headers, incoming, limit).await?;
    let (body, header_length, encoding) = match &app.predictor.caches.features {
        Some(features) => {
            let body = body::decode_body(body, encoding, limit)?;
            let (body, header_length) =
                Box::pin(features::fill_inputs(app, features, model, body, header_length)).await?;
            (body, header_length, ContentEncoding::Identity)
        }
        None => (body, header_length, encoding),
    };
    let begun = Instant::now();
    let request = if body.len() < OFFLOAD_BYTES && encoding == ContentEncoding::Identity {
        slipway_runtime_protocol::parse_request(&body, header_length, &model.signature)?
    } else {
        let signature = model.signature.clone();
        parse_off_thread(move || -> Result<_, ApiError> {
            let body = body::decode_body(body, encoding, limit)?;
            Ok(slipway_runtime_protocol::parse_request(&body, header_length, &signature)?)
        })
        .await?
    };
    model.stats.record_input(begun.elapsed());
    app.predictor.check_rows(model, &request.inputs)?;
    Ok(request)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|v| v.trim().parse().ok());
    length.map(Some).ok_or_else(|| {
        ApiError::bad_request("header Inference-Header-Content-Length must be a number of bytes")
    })
}

async fn run_prediction(
    app: &AppState,
    model: &LoadedModel,
    mut request: InferRequest,
    deadline: Instant,
) -> Result<FullResponse, PredictError> {
    let inputs = std::mem::take(&mut request.inputs);
    let prediction =
        app.predictor.predict_with_priority(model, inputs, deadline, request.priority).await?;
    let begun = Instant::now();
    let answer = build_response(model, &request, &prediction);
    model.stats.record_output(begun.elapsed());
    answer
}

fn build_response(
    model: &LoadedModel,
    request: &InferRequest,
    prediction: &Prediction,
) -> Result<FullResponse, PredictError> {
    let names = (model.name.as_str(), model.version.as_str());
    let body = slipway_runtime_protocol::write_response(
        names,
        &model.signature,
        request,
        &prediction.outputs,
        None,
    )?;
    let content_type =
        if body.header_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut answer = bytes_response(StatusCode::OK, content_type, Bytes::from(body.bytes));
    let headers = answer.headers_mut();
    if let Some(length) = body.header_length {
        headers.insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    if let Ok(value) = HeaderValue::from_str(&prediction.report.encode()) {
        headers.insert(PREDICTION_HEADER, value);
    }
    if prediction.nan_outputs > 0 {
        headers.insert(NAN_OUTPUTS, HeaderValue::from(prediction.nan_outputs));
    }
    if let Some(outcome) = prediction.cache {
        headers.insert(
            slipway_runtime_cache::CACHE_HEADER,
            HeaderValue::from_static(outcome.public_name()),
        );
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_named_in_milliseconds() {
        let with = |v: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT_HEADER, v.parse().unwrap());
            requested_timeout(&headers)
        };
        assert_eq!(requested_timeout(&HeaderMap::new()), Ok(None));
        assert_eq!(with("250"), Ok(Some(Duration::from_millis(250))));
        assert!(with("soon").is_err() && with("0").is_err() && with("-1").is_err());
    }
}
