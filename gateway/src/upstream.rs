//! Connections to one pod.
//!
//! A pool of our own, over hyper's connections, because of two things that a general client hides: whether a request that failed
//! was ever sent, and which connection belongs to which endpoint, so that they go together.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{endpoint::Visit, proxy::upload::Upload};

/// Unused connections kept for each pod.
const MAX_IDLE: usize = 256;
/// How often a connection that turned out to be closed is replaced before the pod counts as unreachable.
const MAX_STALE: usize = 8;

/// Protocol towards the pod. Everything but gRPC is HTTP/1.1, which every server image speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// How connections are made.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Time to connect.
    pub timeout: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
    /// Runs the connections.
    pub tasks: TaskTracker,
}

impl Default for Connector {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(1), idle: Duration::from_secs(30), tasks: TaskTracker::new() }
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum SendError {
    /// It was never sent, and is handed back: safe to send elsewhere.
    Unsent(Box<Request<Upload>>, String),
    /// It may have run.
    Broken {
        /// What happened.
        error: hyper::Error,
        /// Whether it was on a connection that had served before: the pod may have closed it in the same moment.
        reused: bool,
    },
}

struct Idle {
    sender: http1::SendRequest<Upload>,
    since: Instant,
}

/// Connections to one pod.
pub struct Pool {
    addr: SocketAddr,
    connector: Connector,
    idle: Mutex<Vec<Idle>>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Upload>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Pool {
    /// No connections yet.
    pub fn new(addr: SocketAddr, connector: Connector) -> Self {
        Self { addr, connector, idle: Mutex::default(), shared: tokio::sync::Mutex::default() }
    }

    fn take(&self) -> Option<http1::SendRequest<Upload>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Newest first. A connection that is not ready yet finishes its last answer this instant; an older one is ready.
        let at = idle.iter().rposition(|candidate| candidate.sender.is_ready())?;
        Some(idle.remove(at).sender)
    }

    fn put(&self, sender: http1::SendRequest<Upload>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= MAX_IDLE {
            idle.retain(|kept| !kept.sender.is_closed());
        }
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Drops connections that were unused for too long or were closed by the pod.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() <= self.connector.idle);
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>, String> {
        let connecting = tokio::time::timeout(self.connector.timeout, TcpStream::connect(self.addr));
        let stream =
            connecting.await.map_err(|_| "connect timed out".to_owned())?.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(TokioIo::new(stream))
    }

    async fn dial(&self) -> Result<http1::SendRequest<Upload>, String> {
        let io = self.connect().await?;
        let (sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
        // Ends with its sender or its peer; whoever used it has heard of an error already.
        self.connector.tasks.spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn shared(&self) -> Result<(http2::SendRequest<Upload>, bool), String> {
        // Held while connecting, so that a burst opens one connection.
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), true));
        }
        let io = self.connect().await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // Tells a vanished node from a slow model.
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10));
        builder.keep_alive_timeout(Duration::from_secs(5)).adaptive_window(true);
        let (sender, connection) = builder.handshake(io).await.map_err(|error| error.to_string())?;
        self.connector.tasks.spawn(async move { drop(connection.await) });
        *shared = Some(sender.clone());
        Ok((sender, false))
    }
}

/// Sends a request to the endpoint of the visit; `anew` on a connection of its own (HTTP/2 finds out by itself which are dead).
///
/// # Errors
/// [`SendError`] tells whether the request may have run.
pub async fn send(
    visit: Visit,
    request: Request<Upload>,
    protocol: Protocol,
    anew: bool,
) -> Result<Response<Download>, SendError> {
    match protocol {
        Protocol::Http1 => send_http1(visit, request, anew).await,
        Protocol::Http2 => send_http2(visit, request).await,
    }
}

async fn send_http1(visit: Visit, mut request: Request<Upload>, anew: bool) -> Result<Response<Download>, SendError> {
    let pool = &visit.endpoint.pool;
    for _ in 0..MAX_STALE {
        let (mut sender, reused) = match if anew { None } else { pool.take() } {
            Some(sender) => (sender, true),
            None => match pool.dial().await {
                Ok(sender) => (sender, false),
                Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
            },
        };
        match sender.try_send_request(request).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                return Ok(Response::from_parts(parts, Download::new(body, Some(sender), visit)));
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(SendError::Broken { error: failed.into_error(), reused }),
            },
        }
    }
    Err(SendError::Unsent(Box::new(request), "the pod closes every connection".to_owned()))
}

async fn send_http2(visit: Visit, mut request: Request<Upload>) -> Result<Response<Download>, SendError> {
    for _ in 0..MAX_STALE {
        let (mut sender, reused) = match visit.endpoint.pool.shared().await {
            Ok(found) => found,
            Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
        };
        match sender.try_send_request(request).await {
            Ok(response) => return Ok(response.map(|body| Download::new(body, None, visit))),
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(SendError::Broken { error: failed.into_error(), reused }),
            },
        }
    }
    Err(SendError::Unsent(Box::new(request), "the pod closes every connection".to_owned()))
}

/// The body of a pod's answer. At its end the connection goes back to the pool; dropped before, the connection is closed.
#[derive(Debug)]
pub struct Download {
    body: Incoming,
    sender: Option<http1::SendRequest<Upload>>,
    visit: Option<Visit>,
}

impl Download {
    fn new(body: Incoming, sender: Option<http1::SendRequest<Upload>>, visit: Visit) -> Self {
        let mut download = Self { body, sender, visit: Some(visit) };
        if download.body.is_end_stream() {
            download.finish();
        }
        download
    }

    fn finish(&mut self) {
        if let (Some(visit), Some(sender)) = (self.visit.take(), self.sender.take()) {
            visit.endpoint.pool.put(sender);
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => drop(self.sender.take()),
            None => self.finish(),
            Some(Ok(_)) if self.body.is_end_stream() => self.finish(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
