//! Probes, metrics, and what other pods of the model ask for.

use std::fmt;
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use slipway_chassis::admin::{
    AdminEndpoints, AdminFormat, AdminResponse, AllowedMethods, ProbeResult, TEXT_PLAIN,
    body_response,
};
use slipway_contracts::paths;

use super::{AppState, error_response};

const OCTET_STREAM: &str = "application/octet-stream";

impl AdminEndpoints for AppState {
    const FORMAT: AdminFormat = AdminFormat {
        text_type: Some(TEXT_PLAIN),
        not_found: "there is /livez, /readyz and /metrics\n",
        methods: AllowedMethods::Any,
    };

    fn readiness(&self) -> ProbeResult {
        self.unready_reason().map_or(Ok("ok\n".into()), |why| Err(why.into()))
    }

    fn metrics(&self, headers: &HeaderMap) -> Result<(&'static str, Vec<u8>), fmt::Error> {
        let queued = self.predictor.models.all().iter().map(|model| model.pool.queued()).sum();
        Ok(self.predictor.metrics.exposition(queued, headers))
    }

    fn respond(&self, request: &Parts, _peer: IpAddr) -> Option<AdminResponse> {
        (request.uri.path() == paths::HOT_INPUTS).then(|| self.hot_keys_response(&request.headers))
    }
}

impl AppState {
    fn hot_keys_response(&self, headers: &HeaderMap) -> AdminResponse {
        // They contain inputs of clients.
        if let Err(error) = self.predictor.keys.authorize(headers) {
            return error_response(&error.into()).map(|body| body.boxed_unsync());
        }
        let hot = self.predictor.caches.results.as_ref().and_then(|results| results.hot_keys());
        match (hot, self.predictor.models.primary()) {
            (Some(hot), Some(model)) => {
                body_response(StatusCode::OK, Some(OCTET_STREAM), hot.encode(&model.signature))
            }
            _ => body_response(
                StatusCode::NOT_FOUND,
                Some(TEXT_PLAIN),
                "what is hot is not remembered (--cache-hot-keys)\n",
            ),
        }
    }
}
