//! Routes of the inference API.

use std::sync::Arc;

use http::{Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use serde_json::json;
use tracing::Instrument as _;

use super::{Answer, App, ask_to_close, error_answer, features, infer, jobs, json_answer, repository};
use crate::error::ApiError;
use crate::protocol;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Server,
    Live,
    Ready,
    Stats,
    Index,
    Load(&'a str),
    Unload(&'a str),
    /// A job, and the model in whose path it stands, if it does.
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

fn route(path: &str) -> Option<Route<'_>> {
    let path = path.strip_prefix("/v2")?;
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let rest: Vec<&str> = parts.by_ref().take(6).collect();
    Some(match rest.as_slice() {
        [] => Route::Server,
        ["health", "live"] => Route::Live,
        ["health", "ready"] => Route::Ready,
        ["models", "stats"] => Route::Stats,
        ["repository", "index"] => Route::Index,
        ["repository", "models", m, "load"] => Route::Load(m),
        ["repository", "models", m, "unload"] => Route::Unload(m),
        ["jobs", id] => Route::Job(None, id),
        ["models", m, "jobs", id] => Route::Job(Some(m), id),
        ["models", m] => Route::Model(m, None, ModelRoute::Metadata),
        ["models", m, "versions", v] => Route::Model(m, Some(v), ModelRoute::Metadata),
        ["models", m, verb] => Route::Model(m, None, ModelRoute::parse(verb)?),
        ["models", m, "versions", v, verb] => Route::Model(m, Some(v), ModelRoute::parse(verb)?),
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

/// Answers one request, within a span of it where traces are on.
pub(super) async fn handle(app: &Arc<App>, request: Request<Incoming>) -> Answer {
    if !slipway_telemetry::enabled() {
        return answer(app, request).await;
    }
    let span = slipway_telemetry::server_span(request.method(), request.uri().path(), request.headers());
    let answer = Box::pin(answer(app, request).instrument(span.clone())).await;
    slipway_telemetry::record_status(&span, answer.status());
    answer
}

async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Answer {
    let version = request.version();
    let mut answer = dispatch(app, request).await.unwrap_or_else(|e| error_answer(&e));
    if app.draining() && version <= Version::HTTP_11 {
        ask_to_close(&mut answer);
    }
    answer
}

async fn dispatch(app: &Arc<App>, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let path = request.uri().path().to_owned();
    if let Some((model, entity)) = features::path(&path) {
        app.keys.authorize(request.headers())?;
        // Boxed, as all that is rare: the future of a prediction would carry their room along, and is moved about several times.
        return Box::pin(features::write(app, model, entity, request)).await;
    }
    let Some(route) = route(&path) else {
        return Err(ApiError::NotFound(format!("there is nothing at {path}; the API starts at /v2")));
    };
    let allowed = match route {
        Route::Model(_, _, ModelRoute::Infer | ModelRoute::Jobs) | Route::Index | Route::Load(_) | Route::Unload(_) => {
            "POST"
        }
        Route::Job(..) => "GET or DELETE",
        Route::Server | Route::Live | Route::Ready | Route::Stats | Route::Model(..) => "GET",
    };
    // HEAD is GET without the body.
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    if !allowed.split(" or ").any(|one| one == method) {
        return Err(ApiError::MethodNotAllowed(allowed));
    }
    if matches!(route, Route::Load(_) | Route::Unload(_)) {
        app.keys.authorize(request.headers())?;
    }
    match route {
        Route::Server => Ok(server_metadata()),
        Route::Live => Ok(json_answer(StatusCode::OK, &json!({"live": true}))),
        Route::Ready => Ok(ready(app)),
        Route::Stats => statistics(app, None, None),
        Route::Index => Box::pin(repository::index(app, request)).await,
        Route::Load(name) => Box::pin(repository::load(app, name, request)).await,
        Route::Unload(name) => Box::pin(repository::unload(app, name, request)).await,
        Route::Job(model, id) => Box::pin(jobs::one(app, model, id, request.method())).await,
        Route::Model(model, version, ModelRoute::Jobs) => Box::pin(jobs::post(app, model, version, request)).await,
        Route::Model(model, version, ModelRoute::Infer) => Ok(infer::handle(app, model, version, request).await),
        Route::Model(name, version, ModelRoute::Ready) => app.model_ready(name, version).map(|_| ready(app)),
        Route::Model(name, version, ModelRoute::Stats) => statistics(app, Some(name), version),
        Route::Model(name, version, ModelRoute::Metadata) => {
            let model = app.models.get(name, version)?;
            let metadata = protocol::metadata(&model, &app.models.versions(&model.name));
            Ok(json_answer(StatusCode::OK, &metadata))
        }
    }
}

fn server_metadata() -> Answer {
    json_answer(
        StatusCode::OK,
        &json!({"name": super::NAME, "version": super::VERSION, "extensions": super::EXTENSIONS}),
    )
}

fn statistics(app: &App, name: Option<&str>, version: Option<&str>) -> Result<Answer, ApiError> {
    let models = app.statistics(name, version)?;
    let models: Vec<_> = models.iter().map(|model| super::statistics::value(model)).collect();
    Ok(json_answer(StatusCode::OK, &json!({"model_stats": models})))
}

fn ready(app: &App) -> Answer {
    match app.not_ready() {
        None => json_answer(StatusCode::OK, &json!({"ready": true})),
        Some(why) => json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "error": why})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(route("/v2"), Some(Route::Server));
        assert_eq!(route("/v2/"), Some(Route::Server));
        assert_eq!(route("/v2/health/live"), Some(Route::Live));
        assert_eq!(route("/v2/models/m"), Some(Route::Model("m", None, ModelRoute::Metadata)));
        assert_eq!(route("/v2/models/m/versions/2"), Some(Route::Model("m", Some("2"), ModelRoute::Metadata)));
        assert_eq!(route("/v2/models/m/infer"), Some(Route::Model("m", None, ModelRoute::Infer)));
        assert_eq!(route("/v2/models/m/versions/2/ready"), Some(Route::Model("m", Some("2"), ModelRoute::Ready)));
        assert_eq!(route("/v2/models/stats"), Some(Route::Stats));
        assert_eq!(route("/v2/models/m/stats"), Some(Route::Model("m", None, ModelRoute::Stats)));
        assert_eq!(route("/v2/repository/index"), Some(Route::Index));
        assert_eq!(route("/v2/repository/models/m/load"), Some(Route::Load("m")));
        assert_eq!(route("/v2/repository/models/m/unload"), Some(Route::Unload("m")));
        assert_eq!(route("/v2/jobs/7"), Some(Route::Job(None, "7")));
        assert_eq!(route("/v2/models/m/jobs/7"), Some(Route::Job(Some("m"), "7")));
        assert_eq!(route("/v2/models/m/explain"), None);
        assert_eq!(route("/v2/models"), None);
        assert_eq!(route("/v1/models/m"), None);
        assert_eq!(route("/v2/models/m/versions/2/infer/x/y/z"), None);
    }
}
