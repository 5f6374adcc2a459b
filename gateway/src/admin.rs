//! The admin port: probes, metrics, and the stream to the operator.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use slipway_listener::{End, Server, Settings, Unknown};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    gateway::Gateway,
    state::{self, Told},
    streams::Streams,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Time between two lines when nothing changes.
const EVERY: Duration = Duration::from_secs(1);

struct Admin {
    gateway: Arc<Gateway>,
    streams: Arc<Streams>,
    stop: CancellationToken,
}

impl Admin {
    /// Whether the operator asks, where its key is known.
    fn recognise(&self, headers: &HeaderMap) -> Result<(), Unknown> {
        let settings = &self.gateway.settings;
        let Some(key) = &settings.operator_key else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        key.verify(shown, &settings.namespace, &settings.pod_name, now)
    }
}

/// Serves the admin port until `stop`.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: CancellationToken) {
    let streams = Streams::new(gateway.settings.max_state_streams);
    let admin = Arc::new(Admin { gateway, streams, stop: stop.clone() });
    let make = move |peer| {
        let admin = Arc::clone(&admin);
        service_fn(move |request| answer(Arc::clone(&admin), request, peer))
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    Server::new(listener, Settings::admin(End::Cut), builder).serve(make, stop.cancelled()).await;
}

async fn answer(admin: Arc<Admin>, request: Request<Incoming>, peer: IpAddr) -> Result<Response<Body>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
    }
    Ok(match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if admin.gateway.is_ready() => text(StatusCode::OK, "ok\n"),
        "/readyz" if admin.gateway.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not synced\n"),
        "/metrics" => metrics(&admin.gateway, request.headers()),
        "/v1/state" => match admin.recognise(request.headers()) {
            Ok(()) => stream_state(&admin, peer, request.uri().query() == Some("changes=true")),
            Err(why) => refused(why),
        },
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn refused(why: Unknown) -> Response<Body> {
    let mut response = Response::new(Full::from(format!("{why}\n")).boxed_unsync());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Slipway"));
    response
}

fn metrics(gateway: &Gateway, headers: &HeaderMap) -> Response<Body> {
    let Ok((kind, body)) = gateway.metrics.exposition(headers) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n");
    };
    let mut response = Response::new(Full::from(body).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Who reads a stream.
struct Listener {
    changes: watch::Receiver<u64>,
    /// The last change that was told.
    version: u64,
    /// Looks at everything once a second, whatever else is told. The first line goes out at once.
    ticks: Interval,
    /// What was told, if only changes are.
    told: Option<Told>,
}

impl Listener {
    fn new(gateway: &Gateway, only_changes: bool) -> Self {
        let mut changes = gateway.router.subscribe();
        let version = *changes.borrow_and_update();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { changes, version, ticks, told: only_changes.then(Told::default) }
    }

    /// Waits for something to tell.
    async fn next(&mut self, gateway: &Gateway) -> Option<String> {
        if let Some(told) = self.told.as_mut().filter(|told| told.has_more()) {
            return Some(state::line(&told.next(gateway, Vec::new())));
        }
        let ticked = tokio::select! {
            _ = self.ticks.tick() => true,
            changed = self.changes.changed() => {
                changed.ok()?;
                false
            }
        };
        // Read before what it tells of: a change in this very moment is told again by the next line.
        let version = *self.changes.borrow_and_update();
        let state = match &mut self.told {
            Some(told) if ticked => told.news(gateway, None),
            Some(told) => told.news(gateway, gateway.router.changed_since(self.version).as_ref()),
            None => state::state(gateway),
        };
        self.version = version;
        Some(state::line(&state))
    }
}

fn stream_state(admin: &Admin, peer: IpAddr, only_changes: bool) -> Response<Body> {
    // One more stream takes the place of another: an operator that comes back must be heard, whoever else listens.
    let place = admin.streams.open(peer);
    let (gateway, stop) = (Arc::clone(&admin.gateway), admin.stop.clone());
    let (replaced, listener) = (place.replaced(), Listener::new(&gateway, only_changes));
    let lines = stream::unfold((listener, place), move |(mut listener, place)| {
        let gateway = Arc::clone(&gateway);
        async move {
            let line = listener.next(&gateway).await?;
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
