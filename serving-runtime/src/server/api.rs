//! The routes of the inference API.

use std::sync::Arc;

use http::{Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use serde_json::json;
use slipway_chassis::telemetry;
use slipway_contracts::paths;
use tracing::Instrument as _;

use super::error::ApiError;
use super::{
    AppState, FullResponse, error_response, features, infer, jobs, json_response, repository,
    set_connection_close,
};

/// The resource that a path names.
#[derive(Debug, PartialEq, Eq)]
enum ApiRoute<'a> {
    Server,
    Live,
    Ready,
    Stats,
    Index,
    Load(&'a str),
    Unload(&'a str),
    /// A job: the model of the path, if the path names one, and the job's id.
    Job(Option<&'a str>, &'a str),
    Model(&'a str, Option<&'a str>, ModelRoute),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelRoute {
    Metadata,
    Ready,
    Stats,
    Infer,
    Jobs,
}

fn parse_route(path: &str) -> Option<ApiRoute<'_>> {
    let path = path.strip_prefix(paths::PROTOCOL)?;
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let rest: Vec<&str> = parts.by_ref().take(6).collect();
    Some(match rest.as_slice() {
        [] => ApiRoute::Server,
        ["health", "live"] => ApiRoute::Live,
        ["health", "ready"] => ApiRoute::Ready,
        ["models", "stats"] => ApiRoute::Stats,
        ["repository", "index"] => ApiRoute::Index,
        ["repository", "models", m, "load"] => ApiRoute::Load(m),
        ["repository", "models", m, "unload"] => ApiRoute::Unload(m),
        ["jobs", id] => ApiRoute::Job(None, id),
        ["models", m, "jobs", id] => ApiRoute::Job(Some(m), id),
        ["models", m] => ApiRoute::Model(m, None, ModelRoute::Metadata),
        ["models", m, "versions", v] => ApiRoute::Model(m, Some(v), ModelRoute::Metadata),
        ["models", m, verb] => ApiRoute::Model(m, None, ModelRoute::parse(verb)?),
        ["models", m, "versions", v, verb] => ApiRoute::Model(m, Some(v), ModelRoute::parse(verb)?),
        _ => return None,
    })
}

impl ModelRoute {
    fn parse(verb: &str) -> Option<Self> {
        Some(match verb {
            "ready" => Self::Ready,
            "stats" => Self::Stats,
            "infer" => Self::Infer,
            "jobs" => Self::Jobs,
            _ => return None,
        })
    }
}

/// Answers one request, within a span if traces are on.
pub(super) async fn handle_rest(app: &Arc<AppState>, request: Request<Incoming>) -> FullResponse {
    if !telemetry::enabled() {
        return answer_request(app, request).await;
    }
    let span = telemetry::server_span(request.method(), request.uri().path(), request.headers());
    let answer = Box::pin(answer_request(app, request).instrument(span.clone())).await;
    telemetry::record_status(&span, answer.status());
    answer
}

async fn answer_request(app: &Arc<AppState>, request: Request<Incoming>) -> FullResponse {
    let version = request.version();
    let mut answer = dispatch_request(app, request).await.unwrap_or_else(|e| error_response(&e));
    if app.is_draining() && version <= Version::HTTP_11 {
        set_connection_close(&mut answer);
    }
    answer
}

async fn dispatch_request(
    app: &Arc<AppState>,
    request: Request<Incoming>,
) -> Result<FullResponse, ApiError> {
    let path = request.uri().path().to_owned();
    if let Some((model, entity)) = features::parse_path(&path) {
        app.predictor.keys.authorize(request.headers())?;
        // Boxed, like all rare paths: it would otherwise enlarge the future of a prediction, which
        // is moved several times.
        return Box::pin(features::store_rows(app, model, entity, request)).await;
    }
    let Some(route) = parse_route(&path) else {
        return Err(ApiError::NotFound(format!(
            "there is nothing at {path}; the API starts at /v2"
        )));
    };
    let allowed = match route {
        ApiRoute::Model(_, _, ModelRoute::Infer | ModelRoute::Jobs)
        | ApiRoute::Index
        | ApiRoute::Load(_)
        | ApiRoute::Unload(_) => "POST",
        ApiRoute::Job(..) => "GET or DELETE",
        ApiRoute::Server
        | ApiRoute::Live
        | ApiRoute::Ready
        | ApiRoute::Stats
        | ApiRoute::Model(..) => "GET",
    };
    // HEAD is GET without the body.
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    if !allowed.split(" or ").any(|one| one == method) {
        return Err(ApiError::MethodNotAllowed(allowed));
    }
    if matches!(route, ApiRoute::Load(_) | ApiRoute::Unload(_)) {
        app.predictor.keys.authorize(request.headers())?;
    }
    match route {
        ApiRoute::Server => Ok(server_metadata(app)),
        ApiRoute::Live => Ok(json_response(StatusCode::OK, &json!({"live": true}))),
        ApiRoute::Ready => Ok(readiness_response(app)),
        ApiRoute::Stats => statistics_response(app, None, None),
        ApiRoute::Index => Box::pin(repository::list_models(app, request)).await,
        ApiRoute::Load(name) => Box::pin(repository::load_model(app, name, request)).await,
        ApiRoute::Unload(name) => Box::pin(repository::unload_model(app, name, request)).await,
        ApiRoute::Job(model, id) => {
            Box::pin(jobs::get_or_cancel_job(app, model, id, request.method())).await
        }
        ApiRoute::Model(model, version, ModelRoute::Jobs) => {
            Box::pin(jobs::submit_job(app, model, version, request)).await
        }
        ApiRoute::Model(model, version, ModelRoute::Infer) => {
            Ok(infer::handle_infer(app, model, version, request).await)
        }
        ApiRoute::Model(name, version, ModelRoute::Ready) => {
            app.is_model_ready(name, version)?;
            Ok(readiness_response(app))
        }
        ApiRoute::Model(name, version, ModelRoute::Stats) => {
            statistics_response(app, Some(name), version)
        }
        ApiRoute::Model(name, version, ModelRoute::Metadata) => {
            let model = app.predictor.models.get(name, version)?;
            let metadata = slipway_runtime_protocol::metadata_json(
                &model.description(),
                &app.predictor.models.versions(&model.name),
            );
            Ok(json_response(StatusCode::OK, &metadata))
        }
    }
}

fn server_metadata(app: &AppState) -> FullResponse {
    json_response(
        StatusCode::OK,
        &json!({"name": super::SERVER_NAME, "version": super::SERVER_VERSION, "extensions": app.extensions()}),
    )
}

fn statistics_response(
    app: &AppState,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<FullResponse, ApiError> {
    let models = app.models_for_statistics(name, version)?;
    let models: Vec<_> =
        models.iter().map(|model| super::statistics::statistics_json(model)).collect();
    Ok(json_response(StatusCode::OK, &json!({"model_stats": models})))
}

fn readiness_response(app: &AppState) -> FullResponse {
    match app.unready_reason() {
        None => json_response(StatusCode::OK, &json!({"ready": true})),
        Some(why) => {
            json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "error": why}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(parse_route("/v2"), Some(ApiRoute::Server));
        assert_eq!(parse_route("/v2/"), Some(ApiRoute::Server));
        assert_eq!(parse_route("/v2/health/live"), Some(ApiRoute::Live));
        assert_eq!(
            parse_route("/v2/models/m"),
            Some(ApiRoute::Model("m", None, ModelRoute::Metadata))
        );
        assert_eq!(
            parse_route("/v2/models/m/versions/2"),
            Some(ApiRoute::Model("m", Some("2"), ModelRoute::Metadata))
        );
        assert_eq!(
            parse_route("/v2/models/m/infer"),
            Some(ApiRoute::Model("m", None, ModelRoute::Infer))
        );
        assert_eq!(
            parse_route("/v2/models/m/versions/2/ready"),
            Some(ApiRoute::Model("m", Some("2"), ModelRoute::Ready))
        );
        assert_eq!(parse_route("/v2/models/stats"), Some(ApiRoute::Stats));
        assert_eq!(
            parse_route("/v2/models/m/stats"),
            Some(ApiRoute::Model("m", None, ModelRoute::Stats))
        );
        assert_eq!(parse_route("/v2/repository/index"), Some(ApiRoute::Index));
        assert_eq!(parse_route("/v2/repository/models/m/load"), Some(ApiRoute::Load("m")));
        assert_eq!(parse_route("/v2/repository/models/m/unload"), Some(ApiRoute::Unload("m")));
        assert_eq!(parse_route("/v2/jobs/7"), Some(ApiRoute::Job(None, "7")));
        assert_eq!(parse_route("/v2/models/m/jobs/7"), Some(ApiRoute::Job(Some("m"), "7")));
        assert_eq!(parse_route("/v2/models/m/explain"), None);
        assert_eq!(parse_route("/v2/models"), None);
        assert_eq!(parse_route("/v1/models/m"), None);
        assert_eq!(parse_route("/v2/models/m/versions/2/infer/x/y/z"), None);
    }
}
