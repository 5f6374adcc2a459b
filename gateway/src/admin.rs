//! The admin port: probes, metrics, and the stream to the operator.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use slipway_listener::{End, Server, Settings};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{gateway::Gateway, state, streams::Streams};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Time between two lines when nothing changes.
const EVERY: Duration = Duration::from_secs(1);

struct Admin {
    gateway: Arc<Gateway>,
    streams: Arc<Streams>,
    stop: CancellationToken,
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
        "/v1/state" => stream_state(&admin, peer),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
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

fn stream_state(admin: &Admin, peer: IpAddr) -> Response<Body> {
    // One more stream takes the place of another: an operator that comes back must be heard, whoever else listens.
    let place = admin.streams.open(peer);
    let (gateway, stop) = (Arc::clone(&admin.gateway), admin.stop.clone());
    let mut changes = gateway.router.subscribe();
    // The first line goes out at once.
    changes.mark_changed();
    let replaced = place.replaced();
    let lines = stream::unfold((changes, place), move |(mut changes, place)| {
        let gateway = Arc::clone(&gateway);
        async move {
            if matches!(timeout(EVERY, changes.changed()).await, Ok(Err(_))) {
                return None;
            }
            // Made after `changed` has noted the version: a change in this very moment is told again by the next line.
            let line = state::line(&gateway);
            Some((Ok(Frame::data(Bytes::from(line))), (changes, place)))
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
