//! Accepts connections, and ends them at shutdown.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::settings::{ListenerSettings, ShutdownMode};
use crate::table::ConnectionTable;

/// Maximum length of the kernel's accept queue: tokio requests 1024, and Linux allows one more.
const BACKLOG: usize = 1025;

/// A listening port.
#[derive(Debug)]
pub struct HttpServer {
    socket: TcpListener,
    settings: ListenerSettings,
    builder: auto::Builder<TokioExecutor>,
}

impl HttpServer {
    /// Creates a server with limits and timers. `builder` has all other settings; its timers for
    /// request heads are not used.
    pub fn new(
        socket: TcpListener,
        settings: ListenerSettings,
        mut builder: auto::Builder<TokioExecutor>,
    ) -> Self {
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
        builder.http2().timer(TokioTimer::new());
        Self { socket, settings, builder }
    }

    /// Serves HTTP/1.1 and HTTP/2 (prior knowledge) until `stop`, and returns when all connections
    /// have ended. `make` creates the service of a connection, which lives as long as the
    /// connection.
    pub async fn serve<M, S, B>(self, make: M, stop: impl Future<Output = ()>)
    where
        M: Fn(IpAddr) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let (table, tasks, stopping) =
            (ConnectionTable::new(self.settings), TaskTracker::new(), CancellationToken::new());
        let (builder, make) = (Arc::new(self.builder), Arc::new(make));
        let spawn = |stream: TcpStream, peer: IpAddr| {
            let place = table.register(peer);
            tasks.spawn(connection::serve_connection(
                place,
                stream,
                Arc::clone(&builder),
                Arc::clone(&make),
                stopping.clone(),
            ));
        };
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                // First; otherwise a flood of connections would keep the port open.
                () = &mut stop => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => spawn(stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Most likely there are no file descriptors left, so one connection must be
                    // closed.
                    table.evict_one();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        if self.settings.shutdown_mode == ShutdownMode::Drain {
            accept_backlog(self.socket, spawn);
        }
        stopping.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

/// Clients in the kernel's accept queue regard themselves as connected: closing the socket would
/// reset them. The kernel is called directly, because the runtime may not have been notified of the
/// last ones yet.
fn accept_backlog(socket: TcpListener, spawn: impl Fn(TcpStream, IpAddr)) {
    let Ok(socket) = socket.into_std() else { return };
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = socket.accept() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            spawn(stream, peer.ip());
        }
    }
}
