//! Connections to one pod.
//!
//! A pool of our own, over hyper's connections, because of two things that a general client hides:
//! whether a request that failed was ever sent, and which connection belongs to which endpoint, so
//! that they go together.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::calls::{ConnectionCalls, PendingCall};
use crate::endpoint::InFlightGuard;
use crate::proxy::arm::ArmFailure;
use crate::proxy::upload::{UploadBody, UploadError};

/// Unused connections kept for each pod.
const MAX_IDLE: usize = 256;
/// How often a connection that turned out to be closed is replaced before the pod counts as
/// unreachable.
const MAX_STALE: usize = 8;
/// Bytes of one request or answer on a connection at one time.
const BUFFER_BYTES: u32 = 64 << 10;
/// The largest window that HTTP/2 knows (RFC 9113, section 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Protocol towards the pod. Everything but gRPC is HTTP/1.1, which every server image speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// How connections are made.
#[derive(Clone, Debug)]
pub struct PodConnector {
    /// Time to connect.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Runs the connections.
    pub tasks: TaskTracker,
}

impl Default for PodConnector {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
            tasks: TaskTracker::new(),
        }
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum SendError {
    /// It was never sent, and is handed back: safe to send elsewhere.
    Unsent(Box<Request<UploadBody>>, String),
    /// It may have run.
    Broken {
        /// What happened.
        error: String,
        /// Whether it was on a connection that had served before: the pod may have closed it in
        /// the same moment.
        reused: bool,
    },
    /// The client's own body broke off.
    Upload(ArmFailure),
}

impl SendError {
    fn from_hyper(error: &hyper::Error, reused: bool) -> Self {
        if !error.is_user() {
            return Self::Broken { error: error.to_string(), reused };
        }
        let cause = error.source().and_then(|source| source.downcast_ref());
        Self::Upload(cause.map_or(ArmFailure::ClientLeft, UploadError::failure))
    }
}

/// A connection's request side, and the news of its end.
#[derive(Debug)]
struct ConnectionHandle<S> {
    sender: S,
    ended: CancellationToken,
    /// Ends the connection when nobody has the link any more, if nobody else has one to the same:
    /// hyper by itself would first send what it has, and a pod that does not read would keep that
    /// in memory for ever.
    _drop_guard: Option<DropGuard>,
}

impl<S> ConnectionHandle<S> {
    /// Waits for an answer, or for the end of the connection: hyper does not always tell. A request
    /// handed over in the moment in which the connection's task ends can be left in the channel
    /// between them, unsent and unanswered, for as long as the sender lives (hyperium/hyper#4122).
    /// After the end, an answer is there or will never be.
    async fn wait_for_answer<T>(&self, sending: impl Future<Output = T>) -> Option<T> {
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            biased;
            answer = sending.as_mut() => Some(answer),
            () = self.ended.cancelled() => sending.now_or_never(),
        }
    }
}

type Http1Handle = ConnectionHandle<http1::SendRequest<UploadBody>>;

/// An HTTP/2 connection that calls share.
#[derive(Debug)]
struct Http2Connection {
    link: ConnectionHandle<http2::SendRequest<UploadBody>>,
    calls: Arc<ConnectionCalls>,
}

struct IdleConnection {
    link: Http1Handle,
    since: Instant,
}

/// Connections to one pod.
pub struct ConnectionPool {
    addr: SocketAddr,
    connector: PodConnector,
    idle: Mutex<Vec<IdleConnection>>,
    http2_connections: tokio::sync::Mutex<Vec<Http2Connection>>,
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl ConnectionPool {
    /// No connections yet.
    pub fn new(addr: SocketAddr, connector: PodConnector) -> Self {
        Self {
            addr,
            connector,
            idle: Mutex::default(),
            http2_connections: tokio::sync::Mutex::default(),
        }
    }

    fn take_idle(&self) -> Option<Http1Handle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Newest first. A connection that is not ready yet finishes its last answer this instant;
        // an older one is ready.
        let at = idle.iter().rposition(|candidate| candidate.link.sender.is_ready())?;
        Some(idle.remove(at).link)
    }

    fn put_back(&self, link: Http1Handle) {
        if link.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= MAX_IDLE {
            idle.retain(|kept| !kept.link.sender.is_closed());
        }
        if idle.len() < MAX_IDLE {
            idle.push(IdleConnection { link, since: Instant::now() });
        }
    }

    /// Drops connections that were unused for too long or were closed by the pod.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| {
            !kept.link.sender.is_closed() && kept.since.elapsed() <= self.connector.idle_timeout
        });
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>, String> {
        let connecting =
            tokio::time::timeout(self.connector.connect_timeout, TcpStream::connect(self.addr));
        let stream = connecting
            .await
            .map_err(|_| "connect timed out".to_owned())?
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(TokioIo::new(stream))
    }

    async fn open_http1(&self) -> Result<Http1Handle, String> {
        let io = self.connect().await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES as usize);
        let (sender, connection) =
            builder.handshake(io).await.map_err(|error| error.to_string())?;
        let dropped = CancellationToken::new();
        Ok(ConnectionHandle {
            sender,
            ended: self.spawn_connection(connection, dropped.clone()),
            _drop_guard: Some(dropped.drop_guard()),
        })
    }

    /// A connection for a call by HTTP/2, the call on it, and whether it has served before.
    async fn acquire_http2(
        &self,
    ) -> Result<(ConnectionHandle<http2::SendRequest<UploadBody>>, PendingCall, bool), String> {
        // Held while connecting, so that a burst opens no more than it needs.
        let mut shared = self.http2_connections.lock().await;
        // Of what is full and waits for nothing nobody will ever know whether it was seen.
        shared.retain(|it| {
            !it.link.sender.is_closed() && (it.calls.has_room() || it.calls.has_waiting())
        });
        if let Some(Http2Connection { link, calls }) = shared.iter().find(|it| it.calls.has_room())
        {
            let link = ConnectionHandle {
                sender: link.sender.clone(),
                ended: link.ended.clone(),
                _drop_guard: None,
            };
            return Ok((link, calls.open(), true));
        }
        let io = self.connect().await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // Tells a vanished node from a slow model.
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10));
        builder.keep_alive_timeout(Duration::from_secs(5));
        // A client that does not read its answer keeps its own window shut and nobody else's.
        builder.initial_stream_window_size(BUFFER_BYTES).initial_connection_window_size(MAX_WINDOW);
        builder.max_send_buf_size(BUFFER_BYTES as usize);
        let (sender, connection) =
            builder.handshake(io).await.map_err(|error| error.to_string())?;
        let link = ConnectionHandle {
            sender,
            ended: self.spawn_connection(connection, CancellationToken::new()),
            _drop_guard: None,
        };
        let kept = ConnectionHandle {
            sender: link.sender.clone(),
            ended: link.ended.clone(),
            _drop_guard: None,
        };
        let calls = Arc::<ConnectionCalls>::default();
        let call = calls.open();
        shared.push(Http2Connection { link: kept, calls });
        Ok((link, call, false))
    }

    /// Runs a connection until its sender or its peer is gone. Whoever used it hears of an error by
    /// the answer.
    fn spawn_connection<E>(
        &self,
        connection: impl Future<Output = Result<(), E>> + Send + 'static,
        dropped: CancellationToken,
    ) -> CancellationToken
    where
        E: Send,
    {
        let ended = CancellationToken::new();
        // Also when the task is dropped.
        let guard = ended.clone().drop_guard();
        self.connector.tasks.spawn(async move {
            // The connection is gone, with all that it holds, before the guard tells.
            drop(dropped.run_until_cancelled_owned(connection).await);
            drop(guard);
        });
        ended
    }
}

/// Sends a request to the endpoint of the visit; `anew` on a connection of its own (HTTP/2 finds
/// out by itself which are dead).
///
/// # Errors
/// [`SendError`] tells whether the request may have run.
pub async fn send_request(
    visit: InFlightGuard,
    request: Request<UploadBody>,
    protocol: UpstreamProtocol,
    anew: bool,
) -> Result<Response<DownloadBody>, SendError> {
    match protocol {
        UpstreamProtocol::Http1 => send_http1(visit, request, anew).await,
        UpstreamProtocol::Http2 => send_http2(visit, request).await,
    }
}

async fn send_http1(
    visit: InFlightGuard,
    mut request: Request<UploadBody>,
    anew: bool,
) -> Result<Response<DownloadBody>, SendError> {
    let pool = &visit.endpoint.pool;
    for _ in 0..MAX_STALE {
        let (mut link, reused) = match if anew { None } else { pool.take_idle() } {
            Some(link) => (link, true),
            // Boxed, as connections are kept for many requests.
            None => match Box::pin(pool.open_http1()).await {
                Ok(link) => (link, false),
                Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
            },
        };
        let sending = link.sender.try_send_request(request);
        match link.wait_for_answer(sending).await {
            Some(Ok(response)) => {
                let (parts, body) = response.into_parts();
                return Ok(Response::from_parts(parts, DownloadBody::new(body, Some(link), visit)));
            }
            other => request = take_unsent(other, reused)?,
        }
    }
    Err(SendError::Unsent(Box::new(request), "the pod closes every connection".to_owned()))
}

async fn send_http2(
    visit: InFlightGuard,
    mut request: Request<UploadBody>,
) -> Result<Response<DownloadBody>, SendError> {
    for _ in 0..MAX_STALE {
        let (mut link, call, reused) = match Box::pin(visit.endpoint.pool.acquire_http2()).await {
            Ok(found) => found,
            Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
        };
        let sending = link.sender.try_send_request(request);
        match link.wait_for_answer(sending).await {
            Some(Ok(response)) => {
                call.mark_answered();
                return Ok(response.map(|body| DownloadBody::new(body, None, visit)));
            }
            other => request = take_unsent(other, reused)?,
        }
    }
    Err(SendError::Unsent(Box::new(request), "the pod closes every connection".to_owned()))
}

/// The request, if it was handed back: it was never sent.
fn take_unsent<T>(
    failed: Option<Result<T, TrySendError<Request<UploadBody>>>>,
    reused: bool,
) -> Result<Request<UploadBody>, SendError> {
    match failed {
        Some(Err(mut failed)) => failed
            .take_message()
            .map_or_else(|| Err(SendError::from_hyper(&failed.into_error(), reused)), Ok),
        // Left in the channel, and its body with it.
        _ => Err(SendError::Broken { error: "the connection ended".to_owned(), reused }),
    }
}

/// The body of a pod's answer. At its end the connection goes back to the pool; dropped before, the
/// connection is closed.
#[derive(Debug)]
pub struct DownloadBody {
    body: Incoming,
    link: Option<Http1Handle>,
    guard: Option<InFlightGuard>,
}

impl DownloadBody {
    fn new(body: Incoming, link: Option<Http1Handle>, visit: InFlightGuard) -> Self {
        let mut download = Self { body, link, guard: Some(visit) };
        if download.body.is_end_stream() {
            download.return_connection();
        }
        download
    }

    fn return_connection(&mut self) {
        if let (Some(visit), Some(link)) = (self.guard.take(), self.link.take()) {
            visit.endpoint.pool.put_back(link);
        }
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => drop(self.link.take()),
            None => self.return_connection(),
            Some(Ok(_)) if self.body.is_end_stream() => self.return_connection(),
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
