//! The admin port: probes, metrics, and the state stream to the operator.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use slipway_chassis::admin::{
    self, AdminEndpoints, AdminFormat, AdminResponse, AllowedMethods, ProbeResult, body_response,
};
use slipway_contracts::state::{CHANGES_QUERY, PATH as STATE_PATH};
use slipway_gateway_control::state::{self, ReportedState};
use slipway_gateway_control::streams::StateStreams;
use slipway_gateway_routing::context::GatewayContext;
use slipway_listener::{OperatorAuthError, ShutdownMode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Time between two lines when nothing changes.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

struct AdminServer {
    gateway: Arc<GatewayContext>,
    streams: Arc<StateStreams>,
    stop: CancellationToken,
}

impl AdminServer {
    /// Checks that the request is from the operator, if the operator's key is configured.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), OperatorAuthError> {
        let settings = &self.gateway.settings;
        let Some(key) = &settings.operator_key else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        key.verify(shown, &settings.namespace, &settings.pod_name, now)
    }
}

impl AdminEndpoints for AdminServer {
    const FORMAT: AdminFormat = AdminFormat {
        text_type: None,
        not_found: "not found\n",
        methods: AllowedMethods::ReadAnywhere("only GET\n"),
    };

    fn readiness(&self) -> ProbeResult {
        if self.gateway.is_ready() {
            Ok("ok\n".into())
        } else if self.gateway.is_draining() {
            Err("draining\n".into())
        } else {
            Err("not synced\n".into())
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Result<(&'static str, Vec<u8>), fmt::Error> {
        self.gateway.metrics.encode_for_scrape(headers)
    }

    fn respond(&self, request: &Parts, peer: IpAddr) -> Option<AdminResponse> {
        if request.uri.path() != STATE_PATH {
            return None;
        }
        Some(match self.authenticate(&request.headers) {
            Ok(()) => stream_state(self, peer, request.uri.query() == Some(CHANGES_QUERY)),
            Err(why) => unauthorized_response(why),
        })
    }
}

/// Serves the admin port until `stop`.
pub async fn serve_admin(
    gateway: Arc<GatewayContext>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let streams = StateStreams::new(gateway.settings.max_state_streams);
    let endpoints = Arc::new(AdminServer { gateway, streams, stop: stop.clone() });
    admin::serve_admin(listener, ShutdownMode::Abort, endpoints, stop.cancelled()).await;
}

fn unauthorized_response(why: OperatorAuthError) -> AdminResponse {
    let mut response = body_response(StatusCode::UNAUTHORIZED, None, format!("{why}\n"));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Slipway"));
    response
}

/// Who reads a stream.
struct StateSubscriber {
    changes: watch::Receiver<u64>,
    /// The last reported change.
    version: u64,
    /// Triggers a complete comparison every second, independent of other lines. The first tick is
    /// immediate.
    ticks: Interval,
    /// The state reported so far, if only changes are reported.
    reported: Option<ReportedState>,
}

impl StateSubscriber {
    fn new(gateway: &GatewayContext, only_changes: bool) -> Self {
        let mut changes = gateway.router.subscribe();
        let version = *changes.borrow_and_update();
        let mut ticks = interval(STATE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { changes, version, ticks, reported: only_changes.then(ReportedState::default) }
    }

    /// Waits for the next line to send.
    async fn next_line(&mut self, gateway: &GatewayContext) -> Option<String> {
        if let Some(reported) = self.reported.as_mut().filter(|reported| reported.has_more()) {
            return Some(state::encode_line(&reported.next_part(gateway, Vec::new())));
        }
        let ticked = tokio::select! {
            _ = self.ticks.tick() => true,
            changed = self.changes.changed() => {
                changed.ok()?;
                false
            }
        };
        // Read before the state: a change at this very moment is reported again in the next line.
        let version = *self.changes.borrow_and_update();
        let state = match &mut self.reported {
            Some(reported) if ticked => reported.take_changes(gateway, None),
            Some(reported) => {
                reported.take_changes(gateway, gateway.router.changed_since(self.version).as_ref())
            }
            None => state::full_state(gateway),
        };
        self.version = version;
        Some(state::encode_line(&state))
    }
}

fn stream_state(admin: &AdminServer, peer: IpAddr, only_changes: bool) -> AdminResponse {
    // One more stream takes the place of another: an operator that comes back must be heard,
    // whoever else listens.
    let place = admin.streams.open(peer);
    let (gateway, stop) = (Arc::clone(&admin.gateway), admin.stop.clone());
    let (replaced, listener) = (place.replaced(), StateSubscriber::new(&gateway, only_changes));
    let lines = stream::unfold((listener, place), move |(mut listener, place)| {
        let gateway = Arc::clone(&gateway);
        async move {
            let line = listener.next_line(&gateway).await?;
            Some((Ok(Frame::data(Bytes::from(line))), (listener, place)))
        }
    });
    let body = StreamBody::new(lines.take_until(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = replaced.cancelled() => {}
        }
    }));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
