//! The admin port: probes, metrics, and the stream to the operator.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use slipway_contracts::paths;
use slipway_contracts::state::{CHANGES_QUERY, PATH as STATE_PATH};
use slipway_gateway_control::state::{self, ReportedState};
use slipway_gateway_control::streams::StateStreams;
use slipway_gateway_routing::context::GatewayContext;
use slipway_listener::{HttpServer, ListenerSettings, OperatorAuthError, ShutdownMode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

type AdminBody = UnsyncBoxBody<Bytes, Infallible>;

/// Time between two lines when nothing changes.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

struct AdminServer {
    gateway: Arc<GatewayContext>,
    streams: Arc<StateStreams>,
    stop: CancellationToken,
}

impl AdminServer {
    /// Whether the operator asks, where its key is known.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), OperatorAuthError> {
        let settings = &self.gateway.settings;
        let Some(key) = &settings.operator_key else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        key.verify(shown, &settings.namespace, &settings.pod_name, now)
    }
}

/// Serves the admin port until `stop`.
pub async fn serve_admin(
    gateway: Arc<GatewayContext>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let streams = StateStreams::new(gateway.settings.max_state_streams);
    let admin = Arc::new(AdminServer { gateway, streams, stop: stop.clone() });
    let make = move |peer| {
        let admin = Arc::clone(&admin);
        service_fn(move |request| handle_request(Arc::clone(&admin), request, peer))
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    HttpServer::new(listener, ListenerSettings::for_admin_port(ShutdownMode::Abort), builder)
        .serve(make, stop.cancelled())
        .await;
}

async fn handle_request(
    admin: Arc<AdminServer>,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Response<AdminBody>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(text_response(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
    }
    Ok(match request.uri().path() {
        paths::LIVENESS => text_response(StatusCode::OK, "ok\n"),
        paths::READINESS if admin.gateway.is_ready() => text_response(StatusCode::OK, "ok\n"),
        paths::READINESS if admin.gateway.is_draining() => {
            text_response(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        paths::READINESS => text_response(StatusCode::SERVICE_UNAVAILABLE, "not synced\n"),
        paths::METRICS => metrics_response(&admin.gateway, request.headers()),
        STATE_PATH => match admin.authenticate(request.headers()) {
            Ok(()) => stream_state(&admin, peer, request.uri().query() == Some(CHANGES_QUERY)),
            Err(why) => unauthorized_response(why),
        },
        _ => text_response(StatusCode::NOT_FOUND, "not found\n"),
    })
}

fn text_response(status: StatusCode, text: &'static str) -> Response<AdminBody> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn unauthorized_response(why: OperatorAuthError) -> Response<AdminBody> {
    let mut response = Response::new(Full::from(format!("{why}\n")).boxed_unsync());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Slipway"));
    response
}

fn metrics_response(gateway: &GatewayContext, headers: &HeaderMap) -> Response<AdminBody> {
    let Ok((kind, body)) = gateway.metrics.encode_for_scrape(headers) else {
        return text_response(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n");
    };
    let mut response = Response::new(Full::from(body).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Who reads a stream.
struct StateSubscriber {
    changes: watch::Receiver<u64>,
    /// The last change that was told.
    version: u64,
    /// Looks at everything once a second, whatever else is told. The first line goes out at once.
    ticks: Interval,
    /// What was told, if only changes are.
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

    /// Waits for something to tell.
    async fn next_line(&mut self, gateway: &GatewayContext) -> Option<String> {
        if let Some(told) = self.reported.as_mut().filter(|told| told.has_more()) {
            return Some(state::encode_line(&told.next_part(gateway, Vec::new())));
        }
        let ticked = tokio::select! {
            _ = self.ticks.tick() => true,
            changed = self.changes.changed() => {
                changed.ok()?;
                false
            }
        };
        // Read before what it tells of: a change in this very moment is told again by the next
        // line.
        let version = *self.changes.borrow_and_update();
        let state = match &mut self.reported {
            Some(told) if ticked => told.take_changes(gateway, None),
            Some(told) => {
                told.take_changes(gateway, gateway.router.changed_since(self.version).as_ref())
            }
            None => state::full_state(gateway),
        };
        self.version = version;
        Some(state::encode_line(&state))
    }
}

fn stream_state(admin: &AdminServer, peer: IpAddr, only_changes: bool) -> Response<AdminBody> {
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
