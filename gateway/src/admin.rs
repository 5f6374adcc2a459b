//! The admin port: probes, metrics, and the stream to the operator.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{gateway::Gateway, state};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Time between two lines when nothing changes.
const EVERY: Duration = Duration::from_secs(1);
/// Connections at one time, so that nobody can exhaust the process by its probes.
const MAX_CONNECTIONS: usize = 256;

struct Admin {
    gateway: Arc<Gateway>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Serves the admin port until `stop`.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: CancellationToken) {
    let streams = Arc::new(Semaphore::new(gateway.settings.max_state_streams));
    let admin = Arc::new(Admin { gateway, streams, stop: stop.clone() });
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: give somebody time to close one.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| answer(Arc::clone(&admin), request));
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn answer(admin: Arc<Admin>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
    }
    Ok(match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if admin.gateway.is_ready() => text(StatusCode::OK, "ok\n"),
        "/readyz" if admin.gateway.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not synced\n"),
        "/metrics" => metrics(&admin.gateway, request.headers()),
        "/v1/state" => stream_state(&admin),
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

fn stream_state(admin: &Admin) -> Response<Body> {
    let Ok(permit) = Arc::clone(&admin.streams).try_acquire_owned() else {
        return text(StatusCode::TOO_MANY_REQUESTS, "too many streams\n");
    };
    let (gateway, stop) = (Arc::clone(&admin.gateway), admin.stop.clone());
    let mut changes = gateway.router.subscribe();
    // The first line goes out at once.
    changes.mark_changed();
    let lines = stream::unfold((changes, permit), move |(mut changes, permit)| {
        let gateway = Arc::clone(&gateway);
        async move {
            if matches!(timeout(EVERY, changes.changed()).await, Ok(Err(_))) {
                return None;
            }
            // Made after `changed` has noted the version: a change in this very moment is told again by the next line.
            let line = state::line(&gateway);
            Some((Ok(Frame::data(Bytes::from(line))), (changes, permit)))
        }
    });
    let body = StreamBody::new(lines.take_until(stop.cancelled_owned()));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
