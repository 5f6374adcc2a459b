//! Accepts connections, and ends them in order.

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

/// Connections that the kernel holds for us at most: tokio asks for 1024, and Linux takes one more.
const BACKLOG: usize = 1025;

/// A listening port.
#[derive(Debug)]
pub struct HttpServer {
    socket: TcpListener,
    settings: ListenerSettings,
    builder: auto::Builder<TokioExecutor>,
}

impl HttpServer {
    /// A port with its bounds and timers. `builder` says the rest; timers for heads are not its
    /// business.
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
    /// have ended. `make` makes the service of a connection, which lives as long as that.
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
                // First, or a flood of connections would keep the port open.
                () = &mut stop => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => spawn(stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: somebody must close one.
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

/// Clients in the kernel's queue believe that they are connected: closing the socket would reset
/// them. The kernel is asked directly, because the runtime may not have heard of the last ones yet.
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
