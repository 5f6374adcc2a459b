//! The data port: accepts connections, serves HTTP/1.1 and h2c, and loses nothing when it stops.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    gateway::Gateway,
    proxy::{self, answer::AnswerBody},
};

/// Requests of one h2 connection at one time.
const MAX_STREAMS: u32 = 1024;
/// How long a connection that was accepted last may take to send its first request before it is closed by a shutdown.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves the data port. When `stop` is cancelled it accepts what the kernel has already accepted, asks all connections to end
/// after what they are at, and returns when they have, at the latest after the drain timeout.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: CancellationToken) {
    let server = Server {
        builder: Arc::new(builder(&gateway)),
        room: Arc::new(Semaphore::new(gateway.settings.max_connections)),
        tasks: TaskTracker::new(),
        gateway,
        stop,
    };
    server.accept(&listener).await;
    server.accept_backlog(listener);
    server.tasks.close();
    if timeout(server.gateway.settings.drain_timeout, server.tasks.wait()).await.is_err() {
        tracing::warn!(connections = server.tasks.len(), "drain timeout: connections are cut");
    }
}

fn builder(gateway: &Gateway) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(gateway.settings.header_timeout);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).adaptive_window(true);
    // Clients that are impatient for many requests at once end none of their others.
    http2.max_pending_accept_reset_streams(MAX_STREAMS as usize);
    // Finds clients that vanished without a word.
    http2.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Server {
    gateway: Arc<Gateway>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    async fn accept(&self, listener: &TcpListener) {
        loop {
            // Without room, clients wait in the kernel's queue rather than being turned away.
            let permit = tokio::select! {
                () = self.stop.cancelled() => return,
                permit = Arc::clone(&self.room).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.spawn(stream, peer.ip(), permit),
                Err(error) => {
                    // Out of file descriptors, most likely: give somebody time to close one.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Clients in the kernel's queue believe that they are connected: closing the listener would reset them. The kernel is asked
    /// directly, because the runtime may not have heard of the last ones yet.
    fn accept_backlog(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return };
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.spawn(stream, peer.ip(), permit);
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: IpAddr, permit: OwnedSemaphorePermit) {
        let connection = Connection {
            gateway: Arc::clone(&self.gateway),
            peer,
            began: Notify::new(),
            has_begun: AtomicBool::new(false),
        };
        let (builder, stop) = (Arc::clone(&self.builder), self.stop.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            Arc::new(connection).run(stream, &builder, stop).await;
        });
    }
}

struct Connection {
    gateway: Arc<Gateway>,
    peer: IpAddr,
    /// Wakes when the first request has arrived.
    began: Notify,
    has_begun: AtomicBool,
}

impl Connection {
    async fn run(self: Arc<Self>, stream: TcpStream, builder: &auto::Builder<TokioExecutor>, stop: CancellationToken) {
        // The protocol is read before hyper's own timer runs, so a silent client must be found here.
        if !matches!(timeout(self.gateway.settings.header_timeout, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        // Small answers must not wait for the acknowledgement of earlier ones.
        drop(stream.set_nodelay(true));
        self.gateway.metrics.connections.inc();
        let this = Arc::clone(&self);
        let service = service_fn(move |request| Arc::clone(&this).answer(request));
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            _ = connection.as_mut() => true,
            () = self.may_stop(&stop) => false,
        };
        if !ended {
            // HTTP/1.1: ends after the current answer, which says so. HTTP/2: GOAWAY, streams finish.
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
        self.gateway.metrics.connections.dec();
    }

    /// Completes when the connection should be asked to end. One that has just been accepted is first given time for its request:
    /// hyper would close it unread.
    async fn may_stop(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        if !self.has_begun.load(Ordering::Acquire) {
            drop(timeout(FIRST_REQUEST, self.began.notified()).await);
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        if !self.has_begun.swap(true, Ordering::AcqRel) {
            self.began.notify_one();
        }
        let keeps_alive = request.version() < Version::HTTP_2;
        let mut response = proxy::traced(Arc::clone(&self.gateway), request, self.peer).await;
        if keeps_alive && self.gateway.is_draining() {
            // Clients leave one by one, each after an answer, long before the connections are closed.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}
