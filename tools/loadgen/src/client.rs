//! One connection that sends one request after the other, without retries.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::reason::{AnswerDefect, FailureReason};

/// Largest answer that is read, in bytes; no valid answer is larger.
const MOST_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The destination of requests.
#[derive(Debug, Clone)]
pub(crate) struct LoadTarget {
    host: String,
    port: u16,
    authority: HeaderValue,
    timeout: Duration,
    token_file: Option<PathBuf>,
}

impl LoadTarget {
    /// `url` is `http://host[:port]`; `host_header` replaces its host in the header, for a target
    /// behind a port-forward.
    pub(crate) fn new(url: &str, host_header: Option<&str>, timeout: Duration) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("target {url:?}"))?;
        ensure!(uri.scheme_str() == Some("http"), "target {url:?}: only http:// is supported");
        ensure!(uri.path() == "/", "target {url:?}: a path is not supported");
        let authority = uri.authority().context("target without a host")?;
        let shown = host_header.unwrap_or(authority.as_str());
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(shown).with_context(|| format!("host {shown:?}"))?,
            timeout,
            token_file: None,
        })
    }

    /// Sends the content of a file as a bearer token.
    pub(crate) fn with_token(self, token_file: Option<PathBuf>) -> Self {
        Self { token_file, ..self }
    }

    async fn connect(&self) -> Result<TcpStream, FailureReason> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|_| FailureReason::Resolve)?;
        let addresses: Vec<_> = found.collect();
        TcpStream::connect(addresses.as_slice()).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => FailureReason::Refused,
            std::io::ErrorKind::TimedOut => FailureReason::ConnectTimeout,
            _ => FailureReason::Connect,
        })
    }

    /// Waits until a connection can be made, at most for `patience`. A Service refuses connections
    /// until its endpoints have reached every node's proxy, which no object's conditions report.
    pub(crate) async fn wait_reachable(&self, patience: Duration) {
        let until = async {
            while self.connect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(patience, until).await;
    }

    fn build_request(
        &self,
        path: &str,
        body: String,
    ) -> Result<Request<Full<Bytes>>, FailureReason> {
        let mut request = Request::post(path)
            .header(header::HOST, self.authority.clone())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(|_| FailureReason::Token)?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim_end()));
        }
        request.body(Full::new(Bytes::from(body))).map_err(|_| FailureReason::Transport)
    }
}

/// A complete HTTP answer.
pub(crate) struct HttpExchange {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, FailureReason>,
}

struct OpenConnection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A kept-alive connection, opened when it is first needed and after each close.
pub(crate) struct TargetConnection {
    target: Arc<LoadTarget>,
    open: Option<OpenConnection>,
}

impl TargetConnection {
    pub(crate) fn new(target: Arc<LoadTarget>) -> Self {
        Self { target, open: None }
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: String,
    ) -> Result<HttpExchange, FailureReason> {
        let request = self.target.build_request(path, body)?;
        let deadline = self.target.timeout;
        match tokio::time::timeout(deadline, self.send_request(request)).await {
            Ok(Ok(exchange)) => Ok(exchange),
            Ok(Err(reason)) => {
                self.open = None;
                Err(reason)
            }
            // The answer to this request must never be taken for the answer to the next.
            Err(_) => {
                self.open = None;
                Err(FailureReason::Timeout)
            }
        }
    }

    async fn send_request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<HttpExchange, FailureReason> {
        let mut request = request;
        loop {
            let reused = self.ensure_open().await?;
            let Some(open) = &mut self.open else { return Err(FailureReason::Connect) };
            match open.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.read_response(response).await),
                Err(mut error) => match error.take_message() {
                    // The server had closed the idle connection before a byte of the request was
                    // written: a new connection is no retry, because nothing was sent.
                    Some(unsent) if reused => {
                        self.open = None;
                        request = unsent;
                    }
                    _ => return Err(failure_reason(error.error())),
                },
            }
        }
    }

    async fn read_response(
        &mut self,
        response: http::Response<hyper::body::Incoming>,
    ) -> HttpExchange {
        let (parts, body) = response.into_parts();
        let body =
            Limited::new(body, MOST_BYTES).collect().await.map(|whole| whole.to_bytes()).map_err(
                |error| {
                    self.open = None;
                    match error.downcast_ref::<hyper::Error>() {
                        Some(error) => failure_reason(error),
                        None => FailureReason::Malformed(AnswerDefect::Json),
                    }
                },
            );
        HttpExchange { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Ensures that there is an open connection; returns true if it was open before.
    async fn ensure_open(&mut self) -> Result<bool, FailureReason> {
        if let Some(open) = &mut self.open {
            if open.sender.ready().await.is_ok() {
                return Ok(true);
            }
            self.open = None;
        }
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.target.connect())
            .await
            .unwrap_or(Err(FailureReason::ConnectTimeout))?;
        // Without it a small request can wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| FailureReason::Connect)?;
        let driver = tokio::spawn(async move {
            // Errors are returned by the requests that they concern.
            let _ = connection.await;
        });
        self.open = Some(OpenConnection { sender, driver });
        Ok(false)
    }
}

/// Distinguishes a connection closed by the peer from other failures.
fn failure_reason(error: &hyper::Error) -> FailureReason {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return FailureReason::Closed;
    }
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    match io {
        Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) => {
            FailureReason::Closed
        }
        _ => FailureReason::Transport,
    }
}
