//! Connections to one pod.
//!
//! This pool uses hyper's connections directly, because general clients hide two things: whether a
//! failed request was sent at all, and which connection belongs to which endpoint, so that
//! connections are closed with their endpoint.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::calls::{ConnectionCalls, PendingCall};
use crate::upload::UploadBody;

/// Unused connections kept for each pod.
const MAX_IDLE: usize = 256;
/// Buffered bytes of one request or answer on a connection.
const BUFFER_BYTES: u32 = 64 << 10;
/// The largest HTTP/2 window (RFC 9113, section 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Settings for new connections.
#[derive(Clone, Debug)]
pub struct PodConnector {
    /// Time limit to connect.
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

/// The request side of a connection, and a signal for its end.
#[derive(Debug)]
pub(crate) struct ConnectionHandle<S> {
    pub(crate) sender: S,
    ended: CancellationToken,
    /// Ends the connection when the last handle to it is dropped: hyper alone would first send all
    /// buffered data, and for a pod that does not read, this would keep the data in memory
    /// indefinitely.
    _drop_guard: Option<DropGuard>,
}

impl<S> ConnectionHandle<S> {
    /// Waits for an answer, or for the end of the connection, which hyper does not always report: a
    /// request submitted at the moment in which the connection's task ends can stay in the channel
    /// between them, unsent and unanswered, for as long as the sender lives (hyperium/hyper#4122).
    /// After the end, an answer is available now or never.
    pub(crate) async fn wait_for_answer<T>(&self, sending: impl Future<Output = T>) -> Option<T> {
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            biased;
            answer = sending.as_mut() => Some(answer),
            () = self.ended.cancelled() => sending.now_or_never(),
        }
    }
}

/// An HTTP/1.1 connection.
pub(crate) type Http1Handle = ConnectionHandle<http1::SendRequest<UploadBody>>;

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

/// The connections to one pod.
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
    /// Creates a pool without connections.
    pub fn new(addr: SocketAddr, connector: PodConnector) -> Self {
        Self {
            addr,
            connector,
            idle: Mutex::default(),
            http2_connections: tokio::sync::Mutex::default(),
        }
    }

    /// An unused connection, if there is one.
    pub(crate) fn take_idle(&self) -> Option<Http1Handle> {
        let mut idle = self.idle.lock();
        // Newest first. A connection that is not ready yet is just finishing its last answer; an
        // older one is ready.
        let at = idle.iter().rposition(|candidate| candidate.link.sender.is_ready())?;
        Some(idle.remove(at).link)
    }

    /// Keeps a connection that is not used any more.
    pub(crate) fn put_back(&self, link: Http1Handle) {
        if link.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= MAX_IDLE {
            idle.retain(|kept| !kept.link.sender.is_closed());
        }
        if idle.len() < MAX_IDLE {
            idle.push(IdleConnection { link, since: Instant::now() });
        }
    }

    /// Drops connections that were unused for too long or were closed by the pod.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock();
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

    /// Opens a new connection.
    pub(crate) async fn open_http1(&self) -> Result<Http1Handle, String> {
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

    /// A connection for an HTTP/2 call, the call on it, and whether the connection has served
    /// before.
    pub(crate) async fn acquire_http2(
        &self,
    ) -> Result<(ConnectionHandle<http2::SendRequest<UploadBody>>, PendingCall, bool), String> {
        // Held while connecting, so that a burst opens no more connections than it needs.
        let mut shared = self.http2_connections.lock().await;
        // For a full connection without pending answers it will never be known whether its calls
        // were seen.
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
        // Distinguishes a failed node from a slow model.
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10));
        builder.keep_alive_timeout(Duration::from_secs(5));
        // A client that does not read its answer blocks only its own stream window.
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

    /// Runs a connection until its sender is dropped or its peer disconnects. Its user receives an
    /// error through the answer.
    fn spawn_connection<E>(
        &self,
        connection: impl Future<Output = Result<(), E>> + Send + 'static,
        dropped: CancellationToken,
    ) -> CancellationToken
    where
        E: Send,
    {
        let ended = CancellationToken::new();
        // Signals the end also when the task is dropped.
        let guard = ended.clone().drop_guard();
        self.connector.tasks.spawn(async move {
            // The connection is dropped, with all its data, before the end is signalled.
            drop(dropped.run_until_cancelled_owned(connection).await);
            drop(guard);
        });
        ended
    }
}
