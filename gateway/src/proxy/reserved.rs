//! Operations that not every client may use: feedback and feature rows, which affect judgements and
//! answers, previews, and the repository.

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method};
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::model::RoutedModel;
use slipway_gateway_routing::select::RouteMatch;

/// An operation that requires the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedOperation {
    /// Sending feedback.
    Feedback,
    /// Reading or writing feature rows.
    Features,
    /// Loading or unloading models.
    Repository,
    /// Access to the preview revision.
    Preview,
}

/// The reserved operation of a request, if it is one.
pub fn reserved_operation(
    route: &RouteMatch,
    parts: &Parts,
    grpc: bool,
) -> Option<ReservedOperation> {
    let path = parts.uri.path();
    let kind = if grpc { reserved_by_call(path) } else { reserved_by_path(path, &parts.method) };
    kind.or(route.preview.then_some(ReservedOperation::Preview))
}

fn reserved_by_path(path: &str, method: &Method) -> Option<ReservedOperation> {
    // Like model servers, ignores empty path segments.
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next()?, parts.next()?) {
        ("v2", "models") => {}
        ("v2", "repository") => {
            return matches!(parts.next_back(), Some("load" | "unload"))
                .then_some(ReservedOperation::Repository);
        }
        _ => return None,
    }
    let _model = parts.next()?;
    let verb = match parts.next()? {
        "versions" => parts.nth(1)?,
        verb => verb,
    };
    match verb {
        "feedback" => Some(ReservedOperation::Feedback),
        "features" if method != Method::OPTIONS => Some(ReservedOperation::Features),
        _ => None,
    }
}

fn reserved_by_call(path: &str) -> Option<ReservedOperation> {
    matches!(path.rsplit('/').next(), Some("RepositoryModelLoad" | "RepositoryModelUnload"))
        .then_some(ReservedOperation::Repository)
}

/// Why a request at the private port is refused, if it is.
pub fn refuse_without_token(gateway: &GatewayContext, parts: &Parts) -> Option<RequestRefusal> {
    if gateway.keys.authorization().is_none() {
        return Some(RequestRefusal::NoToken);
    }
    let shown = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let shows_it = shown.is_some_and(|token| gateway.keys.is_token(token.trim_ascii()));
    (!shows_it).then_some(RequestRefusal::Unauthorized)
}

/// The proof for a pod that the gateway has verified the token, where the pod requires it.
pub fn access_proof(
    gateway: &GatewayContext,
    model: &RoutedModel,
    what: Option<ReservedOperation>,
) -> Option<HeaderValue> {
    what.filter(|what| {
        matches!(what, ReservedOperation::Features | ReservedOperation::Repository)
    })?;
    let key = gateway.keys.derive(slipway_prediction_id::ACCESS_PURPOSE, &model.config.uid)?;
    let mut proof = HeaderValue::from_str(&hex::encode(key)).ok()?;
    proof.set_sensitive(true);
    Some(proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_paths_are_found_however_they_are_written() {
        let of = |path: &str| reserved_by_path(path, &Method::POST);
        for path in [
            "/v2/models/m/feedback",
            "//v2//models/m/feedback/",
            "/v2/models/m/versions/1/feedback",
        ] {
            assert_eq!(of(path), Some(ReservedOperation::Feedback), "{path}");
        }
        assert_eq!(of("/v2/models/m/features/user-1"), Some(ReservedOperation::Features));
        assert_eq!(of("/v2/repository/models/m/load"), Some(ReservedOperation::Repository));
        for path in [
            "/v2/models/m/infer",
            "/v2/models/feedback",
            "/v2/models/feedback/infer",
            "/v2/repository/index",
            "/",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(
            reserved_by_call("/inference.GRPCInferenceService/RepositoryModelLoad"),
            Some(ReservedOperation::Repository)
        );
        assert_eq!(reserved_by_call("/inference.GRPCInferenceService/ModelInfer"), None);
    }
}
