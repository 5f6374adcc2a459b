//! The data port and the private port: serve HTTP/1.1 and h2c, and lose no request when they stop.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use slipway_gateway_routing::context::GatewayContext;
use slipway_listener::{HttpServer, ListenerSettings, OverloadPolicy, ShutdownMode};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::proxy;
use crate::proxy::answer::AnswerBody;
use crate::proxy::received_request::PortAccess;

/// Time for an answer to reach its client after the deadline of the request.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// Maximum number of concurrent requests on one h2 connection.
const MAX_STREAMS: u32 = 1024;
/// Unread bytes of one h2 stream, in each direction.
const STREAM_WINDOW: u32 = 64 << 10;
/// Buffer of one HTTP/1.1 connection, hence also the size limit of a request head.
const MAX_HEAD: usize = 64 << 10;

/// Serves a port. When `stop` is cancelled it accepts the connections that the kernel has already
/// accepted, closes all connections after their current requests, and returns when they are closed,
/// at the latest after the drain timeout.
pub async fn serve_port(
    gateway: Arc<GatewayContext>,
    listener: TcpListener,
    access: PortAccess,
    stop: CancellationToken,
) {
    let settings = ListenerSettings {
        max_connections: gateway.settings.max_connections,
        header_timeout: gateway.settings.header_timeout,
        idle_timeout: gateway.settings.header_timeout,
        overload_policy: OverloadPolicy::Wait,
        shutdown_mode: ShutdownMode::Drain,
    };
    let of_connections = Arc::clone(&gateway);
    let make = move |peer| {
        let open = ClientConnection::count(Arc::clone(&of_connections));
        // Boxed: hyper and the listener move it several times before it runs.
        service_fn(move |request| {
            Box::pin(answer_request(Arc::clone(&open.0), request, peer, access))
        })
    };
    let serving =
        HttpServer::new(listener, settings, connection_builder()).serve(make, stop.cancelled());
    let drained = async {
        stop.cancelled().await;
        sleep(drain_timeout(&gateway)).await;
    };
    tokio::select! {
        () = serving => {}
        () = drained => {
            tracing::warn!(connections = gateway.metrics.connections.get(), "drain timeout: connections are cut");
        }
    }
}

/// Time limit for requests in flight, derived from their deadlines.
fn drain_timeout(gateway: &GatewayContext) -> Duration {
    let longest = || gateway.router.table().models.values().map(|model| model.config.timeout).max();
    gateway.settings.drain_timeout.unwrap_or_else(|| longest().unwrap_or_default() + DRAIN_MARGIN)
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    // Data that a client may send before it is read. Bodies are read at once, except streamed ones,
    // which wait for their pods.
    http2
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(16 * STREAM_WINDOW);
    http2.max_send_buf_size(STREAM_WINDOW as usize);
    // A client that cancels many requests at once does not lose its other ones.
    http2.max_pending_accept_reset_streams(MAX_STREAMS as usize);
    // Detects clients that disappeared without closing the connection.
    http2.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(Duration::from_secs(20));
    builder.http1().max_buf_size(MAX_HEAD);
    builder
}

/// An open connection; counted until it is dropped.
struct ClientConnection(Arc<GatewayContext>);

impl ClientConnection {
    fn count(gateway: Arc<GatewayContext>) -> Self {
        gateway.metrics.connections.inc();
        Self(gateway)
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

async fn answer_request(
    gateway: Arc<GatewayContext>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: PortAccess,
) -> Result<Response<AnswerBody>, Infallible> {
    let keeps_alive = request.version() < Version::HTTP_2;
    let mut response = proxy::handle_traced(Arc::clone(&gateway), request, peer, access).await;
    if keeps_alive && gateway.is_draining() {
        // Clients disconnect one by one, each after an answer, long before the connections are
        // closed.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use slipway_crds::routing::RoutingClaims;
    use slipway_gateway_policy::config::{
        BrakeConfig, ModelConfig, PodSettings, RoutingSnapshot, ShieldConfig,
    };
    use slipway_gateway_routing::settings::ProcessSettings;

    use super::*;

    fn gateway(drain_timeout: Option<Duration>, timeouts: &[u64]) -> Arc<GatewayContext> {
        let gateway =
            GatewayContext::new(ProcessSettings { drain_timeout, ..ProcessSettings::default() });
        let models = timeouts.iter().map(|seconds| {
            let name = format!("of-{seconds}");
            let config = ModelConfig {
                name: name.clone(),
                uid: name.clone(),
                created: 0,
                claims: RoutingClaims { model_name: name.clone(), ..RoutingClaims::default() },
                weights: None,
                stable: None,
                timeout: Duration::from_secs(*seconds),
                max_request: 16 << 20,
                rollout: String::new(),
                scaled_to_zero: false,
                caching: false,
                sticky_header: None,
                replay: true,
                shield: ShieldConfig { enabled: true, candidate_timeout: None },
                brake: BrakeConfig::DEFAULT,
                pod_settings: PodSettings::default(),
                outcomes: Vec::new(),
                reveals_revision: false,
            };
            (name, config)
        });
        gateway.router.apply_snapshot(&RoutingSnapshot {
            models: models.collect(),
            endpoints: BTreeMap::new(),
        });
        gateway
    }

    #[test]
    fn a_drain_lasts_as_long_as_the_longest_request_may() {
        assert_eq!(drain_timeout(&gateway(None, &[30, 3600, 1])), Duration::from_secs(3605));
        assert_eq!(drain_timeout(&gateway(None, &[])), DRAIN_MARGIN);
        assert_eq!(
            drain_timeout(&gateway(Some(Duration::from_secs(7)), &[30])),
            Duration::from_secs(7)
        );
    }
}
