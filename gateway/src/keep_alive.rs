//! Keeps the pods that terminate while nobody else serves.
//!
//! A node is drained, and the only pod of a model is told to end. Slipway's model server serves on
//! for as long as requests come, so that the pod is there until its replacement is ready; but a
//! model may be asked less often than the pod waits. So the gateway asks for the health of pods
//! that terminate while their arm has no ready pod. As soon as it has one, nobody asks any more,
//! and the pod ends.

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

/// How often. Well within the time that a model server waits for another request
/// (`--drain-delay-seconds`, 5 s).
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Asks until `stop`.
pub async fn run_keep_alive(gateway: Arc<GatewayContext>, stop: CancellationToken) {
    let mut ticks = interval(PROBE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => join_all(terminating_pods(&gateway).into_iter().map(probe_pod)).await,
        };
    }
}

/// The pods that terminate and are all that an arm has.
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
            // Read to its end, so that the connection is kept; what it says is known from the
            // EndpointSlice.
            drop(http_body_util::Limited::new(answer.into_body(), 1 << 16).collect().await);
        }
    };
    // A pod that does not answer is asked again.
    drop(timeout(PROBE_INTERVAL, asked).await);
}
