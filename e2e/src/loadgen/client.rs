//! One connection that sends one request after the other, and repeats none.

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

use super::reason::{Defect, Reason};

/// No right answer is larger.
const MOST_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    authority: HeaderValue,
    timeout: Duration,
    token_file: Option<PathBuf>,
}

impl Target {
    /// `url` is `http://host[:port]`; `host_header` replaces its host in the header, for a target behind a port-forward.
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

    /// Shows what is in a file as a bearer token.
    pub(crate) fn with_token(self, token_file: Option<PathBuf>) -> Self {
        Self { token_file, ..self }
    }

    async fn connect(&self) -> Result<TcpStream, Reason> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(|_| Reason::Resolve)?;
        let addresses: Vec<_> = found.collect();
        TcpStream::connect(addresses.as_slice()).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Reason::Refused,
            std::io::ErrorKind::TimedOut => Reason::ConnectTimeout,
            _ => Reason::Connect,
        })
    }

    /// Waits until a connection can be made, at most for `patience`. A Service refuses connections until its endpoints have reached
    /// every node's proxy, which no condition of any object tells.
    pub(crate) async fn reachable(&self, patience: Duration) {
        let until = async {
            while self.connect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(patience, until).await;
    }

    fn request(&self, path: &str, body: String) -> Result<Request<Full<Bytes>>, Reason> {
        let mut request = Request::post(path)
            .header(header::HOST, self.authority.clone())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(|_| Reason::Token)?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim_end()));
        }
        request.body(Full::new(Bytes::from(body))).map_err(|_| Reason::Transport)
    }
}

/// A whole HTTP answer.
pub(crate) struct Exchange {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, Reason>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A kept-alive connection, opened when it is first needed and after each close.
pub(crate) struct Connection {
    target: Arc<Target>,
    open: Option<Open>,
}

impl Connection {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target, open: None }
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn post(&mut self, path: &str, body: String) -> Result<Exchange, Reason> {
        let request = self.target.request(path, body)?;
        let deadline = self.target.timeout;
        match tokio::time::timeout(deadline, self.exchange(request)).await {
            Ok(Ok(exchange)) => Ok(exchange),
            Ok(Err(reason)) => {
                self.open = None;
                Err(reason)
            }
            // The answer to this request must never be taken for the answer to the next.
            Err(_) => {
                self.open = None;
                Err(Reason::Timeout)
            }
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Exchange, Reason> {
        let mut request = request;
        loop {
            let reused = self.ready().await?;
            let Some(open) = &mut self.open else { return Err(Reason::Connect) };
            match open.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.read(response).await),
                Err(mut error) => match error.take_message() {
                    // The server had closed the idle connection before a byte of the request was written: a new connection is
                    // no retry, because nothing was sent.
                    Some(unsent) if reused => {
                        self.open = None;
                        request = unsent;
                    }
                    _ => return Err(reason_of(error.error())),
                },
            }
        }
    }

    async fn read(&mut self, response: http::Response<hyper::body::Incoming>) -> Exchange {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await.map(|whole| whole.to_bytes()).map_err(|error| {
            self.open = None;
            match error.downcast_ref::<hyper::Error>() {
                Some(error) => reason_of(error),
                None => Reason::Malformed(Defect::Json),
            }
        });
        Exchange { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Makes sure that there is an open connection; true when it has been there before.
    async fn ready(&mut self) -> Result<bool, Reason> {
        if let Some(open) = &mut self.open {
            if open.sender.ready().await.is_ok() {
                return Ok(true);
            }
            self.open = None;
        }
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.target.connect())
            .await
            .unwrap_or(Err(Reason::ConnectTimeout))?;
        // Without it a small request can wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Reason::Connect)?;
        let driver = tokio::spawn(async move {
            // Its errors reach the request that they concern.
            let _ = connection.await;
        });
        self.open = Some(Open { sender, driver });
        Ok(false)
    }
}

/// Whether the peer closed the connection, or something else went wrong.
fn reason_of(error: &hyper::Error) -> Reason {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Reason::Closed;
    }
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    match io {
        Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) => Reason::Closed,
        _ => Reason::Transport,
    }
}
