//! The ports, with their bounds.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use slipway_listener::{HttpServer, ListenerSettings, OverloadPolicy, ShutdownMode, bind_address};
use tokio::net::TcpListener;

use super::AppState;

/// Time for the head of a connection's first request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a kept connection may idle. Longer than any client of ours keeps one, so that it is
/// never us who close it at the moment of use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Requests of one HTTP/2 connection at one time.
const MAX_STREAMS: u32 = 1024;

/// A bound port.
#[derive(Debug)]
pub struct BoundListener {
    socket: TcpListener,
    address: SocketAddr,
    settings: ListenerSettings,
}

impl BoundListener {
    /// Binds the port of the API, for so many connections at one time.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind_api(address: SocketAddr, max_connections: usize) -> std::io::Result<Self> {
        let (header_timeout, idle_timeout) = (HEADER_TIMEOUT, IDLE_TIMEOUT);
        let settings = ListenerSettings {
            max_connections,
            header_timeout,
            idle_timeout,
            overload_policy: OverloadPolicy::Wait,
            shutdown_mode: ShutdownMode::Drain,
        };
        Self::bind(address, settings)
    }

    /// Binds the port of probes and metrics.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind_admin(address: SocketAddr) -> std::io::Result<Self> {
        Self::bind(address, ListenerSettings::for_admin_port(ShutdownMode::Drain))
    }

    fn bind(address: SocketAddr, settings: ListenerSettings) -> std::io::Result<Self> {
        let socket = bind_address(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, settings })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves HTTP/1.1 and HTTP/2 (prior knowledge) until `stop`, then takes no more connections,
    /// lets what is in flight finish and closes the idle ones.
    pub async fn serve<H, F, B>(
        self,
        app: Arc<AppState>,
        handler: H,
        stop: impl Future<Output = ()>,
    ) where
        H: Fn(Arc<AppState>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let make = move |_| {
            let (app, handler) = (Arc::clone(&app), handler.clone());
            service_fn(move |request| {
                // Boxed: hyper and the listener move it several times before it runs.
                let answer = Box::pin(handler(Arc::clone(&app), request));
                async move { Ok::<_, Infallible>(answer.await) }
            })
        };
        HttpServer::new(self.socket, self.settings, connection_builder()).serve(make, stop).await;
    }
}

fn connection_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Requests that are taken back before they were looked at count against a connection, and
    // beyond this end it, with all that others sent over it: the gateway's connection carries
    // everybody's. As many as may be open are no attack yet.
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    builder.http2().max_pending_accept_reset_streams(MAX_STREAMS as usize);
    builder
}
