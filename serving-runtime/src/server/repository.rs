//! `/v2/repository`: the model repository extension over REST.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{AppState, FullResponse, body, json_response};

/// Largest body in bytes; these requests have a few words.
const MAX_BODY: usize = 1 << 20;

#[derive(Debug, Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Debug, Default, Deserialize)]
struct LoadRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

async fn read_json_body<T: DeserializeOwned + Default>(
    app: &AppState,
    request: Request<Incoming>,
) -> Result<T, ApiError> {
    let (head, incoming) = request.into_parts();
    let encoding = body::content_encoding(&head.headers)?;
    let collected = body::collect_body(&head.headers, incoming, MAX_BODY);
    let collected = tokio::time::timeout(app.args.request_timeout(), collected).await;
    let collected =
        collected.map_err(|_| ApiError::Deadline(app.args.request_timeout().as_millis()))??;
    let bytes = body::decode_body(collected, encoding, MAX_BODY)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    // serde would also accept an array for the fields of a struct.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::bad_request("the body must be a JSON object or empty"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::bad_request(format!("the body must be a JSON object or empty: {e}")))
}

/// Lists the models that are served or declared.
pub(super) async fn list_models(
    app: &AppState,
    request: Request<Incoming>,
) -> Result<FullResponse, ApiError> {
    let IndexRequest { ready } = read_json_body(app, request).await?;
    let entries = app.repository_index(ready).await?;
    Ok(json_response(StatusCode::OK, &entries))
}

pub(super) async fn load_model(
    app: &AppState,
    name: &str,
    request: Request<Incoming>,
) -> Result<FullResponse, ApiError> {
    let LoadRequest { mut parameters } = read_json_body(app, request).await?;
    let version = match parameters.remove("version") {
        None => None,
        Some(Value::String(version)) => Some(version),
        Some(_) => return Err(ApiError::bad_request("parameters.version must be a string")),
    };
    if let Some(name) = parameters.keys().next() {
        return Err(unknown_parameter(name));
    }
    app.load_model(name, version.as_deref()).await?;
    Ok(json_response(StatusCode::OK, &json!({})))
}

pub(super) async fn unload_model(
    app: &AppState,
    name: &str,
    request: Request<Incoming>,
) -> Result<FullResponse, ApiError> {
    // Clients send `unload_dependents`, which has no effect because models have no dependents here.
    let LoadRequest { .. } = read_json_body(app, request).await?;
    app.unload_model(name)?;
    Ok(json_response(StatusCode::OK, &json!({})))
}

/// Models are loaded as they are declared: a client that could send the file or change the
/// configuration could run anything.
pub(super) fn unknown_parameter(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "parameter {name:?} of a load is not supported; models are loaded as they lie in the repository"
    ))
}
