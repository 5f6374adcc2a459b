//! The ports and their limits.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use slipway_chassis::admin;
use slipway_listener::{HttpServer, ListenerSettings, OverloadPolicy, ShutdownMode, bind_address};
use tokio::net::TcpListener;

use super::{AppState, handle_api};

/// Time limit for the head of a connection's first request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a connection may be idle. Longer than the idle timeout of our clients, so that the
/// server never closes a connection at the moment of its use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Largest number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1024;

#[derive(Debug)]
pub struct BoundListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl BoundListener {
    /// Binds a port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = bind_address(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The local address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves probes and metrics until the process ends.
    pub async fn serve_admin(self, app: Arc<AppState>) {
        admin::serve_admin(self.socket, ShutdownMode::Drain, app, pending()).await;
    }

    /// Serves the API by HTTP/1.1 and HTTP/2 (prior knowledge) until `stop`, then takes no more
    /// connections, lets what is in flight finish and closes the idle ones.
    pub async fn serve_api(self, app: Arc<AppState>, stop: impl Future<Output = ()>) {
        let settings = ListenerSettings {
            max_connections: app.args.max_connections,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            overload_policy: OverloadPolicy::Wait,
            shutdown_mode: ShutdownMode::Drain,
        };
        let make = move |_| {
            let app = Arc::clone(&app);
            service_fn(move |request| {
                // Boxed: hyper and the listener move it several times before it runs.
                let answer = Box::pin(handle_api(Arc::clone(&app), request));
                async move { Ok::<_, Infallible>(answer.await) }
            })
        };
        HttpServer::new(self.socket, settings, connection_builder()).serve(make, stop).await;
    }
}

fn connection_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper counts requests that are cancelled before they were accepted, and beyond a limit closes
    // the connection with all its other requests; the gateway's connection carries the requests of
    // all clients. Up to the number of concurrent streams this is normal and not an attack.
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    builder.http2().max_pending_accept_reset_streams(MAX_STREAMS as usize);
    builder
}
