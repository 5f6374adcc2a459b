//! Accepting connections, and ending them in order.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use super::App;

/// Time for the head of a request, which for a kept connection includes the idle time before it. Longer than any client of ours keeps an
/// idle connection, so that it is never us who close one at the moment of use.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Connections that the kernel holds for us at most; tokio's own number.
const BACKLOG: usize = 1024;

/// Requests of one HTTP/2 connection at one time.
const MAX_STREAMS: u32 = 1024;

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves HTTP/1.1 and HTTP/2 (prior knowledge) until `stop`, then takes no more connections, lets what is in flight finish and
    /// closes the idle ones.
    pub async fn serve<H, F, B>(self, app: Arc<App>, handler: H, stop: impl Future<Output = ()>)
    where
        H: Fn(Arc<App>, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                // First, or a flood of connections would keep the port open.
                () = &mut stop => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => spawn(stream, &app, handler.clone(), &graceful),
                    // Out of file descriptors, mostly: connections that end free some.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        // Those who are connected already, in the kernel's eyes, are served too.
        for _ in 0..BACKLOG {
            let Some(Ok((stream, _))) = self.socket.accept().now_or_never() else { break };
            spawn(stream, &app, handler.clone(), &graceful);
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

fn spawn<H, F, B>(stream: TcpStream, app: &Arc<App>, handler: H, graceful: &GracefulShutdown)
where
    H: Fn(Arc<App>, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Answers are written at once; waiting to fill a packet only adds latency.
    let _ = stream.set_nodelay(true);
    let app = Arc::clone(app);
    let service = service_fn(move |request| {
        let answer = handler(Arc::clone(&app), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // Requests that are taken back before they were looked at count against a connection, and beyond this end it, with all that others sent over
    // it: the gateway's connection carries everybody's. As many as may be open are no attack yet.
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    builder.http2().max_pending_accept_reset_streams(MAX_STREAMS as usize);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection");
        }
    });
}
