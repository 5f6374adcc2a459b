//! Keeps terminating pods alive while their arm has no ready pod.
//!
//! When a node is drained, the only pod of a model may be terminated. Slipway's model server
//! continues serving as long as it receives requests, so that the pod exists until its replacement
//! is ready; but a model may receive fewer requests than that needs. The gateway therefore probes
//! the health of terminating pods while their arm has no ready pod. As soon as the arm has one, the
//! probes stop, and the terminating pod ends.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use slipway_contracts::paths::SERVER_READY;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_upstream::buffer::{BufferedBody, ReplayBody};
use slipway_gateway_upstream::endpoint::InFlightGuard;
use slipway_gateway_upstream::send::{UpstreamProtocol, send_request};
use slipway_gateway_upstream::upload::UploadBody;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// Probe interval. Well within the time that a model server waits for another request
/// (`--drain-delay-seconds`, 5 s).
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Probes until `stop`.
pub async fn run_keep_alive(gateway: Arc<GatewayContext>, stop: CancellationToken) {
    let mut ticks = interval(PROBE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => join_all(terminating_pods(&gateway).into_iter().map(probe_pod)).await,
        };
    }
}

/// The terminating pods of arms without ready pods.
fn terminating_pods(gateway: &GatewayContext) -> Vec<InFlightGuard> {
    let models = gateway.router.models();
    let arms = models.iter().flat_map(|model| model.needed_arms());
    arms.filter(|arm| arm.endpoints.ready_count() == 0)
        .flat_map(|arm| arm.endpoints.acquire_all())
        .collect()
}

async fn probe_pod(visit: InFlightGuard) {
    let mut request =
        Request::new(UploadBody::Replay(ReplayBody::new(Arc::new(BufferedBody::default()))));
    *request.uri_mut() = http::Uri::from_static(SERVER_READY);
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let asked = async {
        if let Ok(answer) = send_request(visit, request, UpstreamProtocol::Http1, false).await {
            // The body is read to its end, so that the connection can be reused; the pod's state is
            // known from the EndpointSlice.
            drop(http_body_util::Limited::new(answer.into_body(), 1 << 16).collect().await);
        }
    };
    // A pod that does not answer is probed again at the next tick.
    drop(timeout(PROBE_INTERVAL, asked).await);
}
