//! The Kubernetes client: every request is counted, and none is retried implicitly.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use kube::{Client, Config};
use slipway_objects::ManagedKind;
use tower::{Layer, Service};

use crate::metrics::OperatorMetrics;
use crate::process::error::OperatorError;

/// Determines the cluster: from the kubeconfig, else from the service account of the pod.
///
/// # Errors
/// When neither exists.
pub async fn infer_config() -> Result<Config, OperatorError> {
    Config::infer().await.map_err(|e| OperatorError::Config(e.to_string()))
}

/// Builds a client that counts its requests.
///
/// # Errors
/// When TLS or credentials cannot be set up.
pub fn build_client(
    config: Config,
    metrics: Arc<OperatorMetrics>,
) -> Result<Client, OperatorError> {
    let builder = slipway_cluster_client::client_builder(config)
        .map_err(|e| OperatorError::Client(Box::new(e)))?;
    Ok(builder.with_layer(&CountingLayer { metrics }).build())
}

/// Adds [`CountingService`] to a client.
struct CountingLayer {
    metrics: Arc<OperatorMetrics>,
}

impl<S> Layer<S> for CountingLayer {
    type Service = CountingService<S>;

    fn layer(&self, inner: S) -> CountingService<S> {
        CountingService { inner, metrics: Arc::clone(&self.metrics) }
    }
}

/// A service that counts its requests.
struct CountingService<S> {
    inner: S,
    metrics: Arc<OperatorMetrics>,
}

impl<S, B> Service<Request<Body>> for CountingService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, kind) = classify_request(&request);
        let metrics = Arc::clone(&self.metrics);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.count_request(
                verb,
                kind,
                answer.as_ref().map_or("error", |r| status_class(r.status())),
            );
            answer
        })
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "ok",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        422 => "invalid",
        429 => "throttled",
        400..=499 => "client_error",
        _ => "server_error",
    }
}

/// Verb and resource of a request as labels, both from fixed sets.
fn classify_request(request: &Request<Body>) -> (&'static str, &'static str) {
    let (resource, has_name) = parse_resource(request.uri().path());
    let watches = request
        .uri()
        .query()
        .is_some_and(|q| q.split('&').any(|p| p == "watch=true" || p == "watch=1"));
    let applies = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/apply"));
    let verb = match *request.method() {
        Method::GET if watches => "watch",
        Method::GET if has_name => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PATCH if applies => "apply",
        Method::PATCH => "patch",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

/// Requested resources besides the managed kinds.
const OTHER_RESOURCES: [&str; 5] =
    ["modeldeployments", "modeldeployments/status", "events", "leases", "namespaces"];

/// The resource as a label, from a fixed set.
fn resource_label(resource: &str) -> &'static str {
    let managed = ManagedKind::ALL.into_iter().map(ManagedKind::resource);
    managed.chain(OTHER_RESOURCES).find(|it| *it == resource).unwrap_or("other")
}

/// Resource of a path such as `/apis/apps/v1/namespaces/ns/replicasets/name`, and whether the path
/// refers to a single object.
fn parse_resource(path: &str) -> (&'static str, bool) {
    let mut parts = path.trim_matches('/').split('/');
    let skip = if parts.next() == Some("apis") { 2 } else { 1 };
    let rest: Vec<&str> = parts.skip(skip).collect();
    let rest = match rest.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        other => other,
    };
    let (plural, named) = match rest {
        [plural, _, sub, ..] => (format!("{plural}/{sub}"), true),
        [plural, _] => ((*plural).to_owned(), true),
        [plural] => ((*plural).to_owned(), false),
        [] => return ("other", false),
    };
    (resource_label(&plural), named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(method: Method, uri: &str, content: &str) -> (&'static str, &'static str) {
        let request =
            Request::builder().method(method).uri(uri).header(http::header::CONTENT_TYPE, content);
        classify_request(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn requests_get_bounded_labels() {
        for (method, uri, content, expected) in [
            (Method::GET, "/api/v1/pods?&watch=true&labelSelector=x", "", ("watch", "pods")),
            (Method::GET, "/apis/apps/v1/replicasets?limit=500", "", ("list", "replicasets")),
            (
                Method::GET,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                "",
                ("get", "leases"),
            ),
            (
                Method::PATCH,
                "/apis/ml.slipway.dev/v1alpha1/namespaces/a/modeldeployments/b/status?force=true",
                "application/apply-patch+yaml",
                ("apply", "modeldeployments/status"),
            ),
            (
                Method::PATCH,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                "application/strategic-merge-patch+json",
                ("patch", "leases"),
            ),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events", "", ("create", "events")),
            (Method::DELETE, "/api/v1/namespaces/a/services/b", "", ("delete", "services")),
            (Method::GET, "/api/v1/namespaces?watch=1", "", ("watch", "namespaces")),
            (Method::GET, "/version", "", ("list", "other")),
            (Method::GET, "/api/v1/namespaces/a/secrets/b", "", ("get", "other")),
        ] {
            assert_eq!(classified(method, uri, content), expected, "{uri}");
        }
    }
}
