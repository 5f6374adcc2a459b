//! A small HTTP client for tests and the demo: plain HTTP to addresses of the cluster.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Default time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client; cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

/// A complete answer.
#[derive(Debug)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::with_timeout(REQUEST_TIMEOUT)
    }
}

impl HttpClient {
    /// A client with this time limit.
    pub fn with_timeout(patience: Duration) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), timeout: patience }
    }

    /// Sends a GET.
    pub async fn get(&self, url: &str) -> anyhow::Result<HttpResponse> {
        self.send(Request::get(url).body(Full::default())?).await
    }

    /// Sends a GET with another Host header.
    pub async fn get_with_host(&self, url: &str, host: &str) -> anyhow::Result<HttpResponse> {
        self.send(Request::get(url).header(http::header::HOST, host).body(Full::default())?).await
    }

    /// Sends a POST of JSON; `host` sets the Host header when given.
    pub async fn post(
        &self,
        url: &str,
        host: Option<&str>,
        json: &serde_json::Value,
    ) -> anyhow::Result<HttpResponse> {
        let mut request = Request::post(url).header(http::header::CONTENT_TYPE, "application/json");
        if let Some(host) = host {
            request = request.header(http::header::HOST, host);
        }
        self.send(request.body(Full::new(Bytes::from(serde_json::to_vec(json)?)))?).await
    }

    /// Sends a POST of JSON to a port that requires a token.
    pub async fn post_with_token(
        &self,
        url: &str,
        host: &str,
        token: &str,
        json: &serde_json::Value,
    ) -> anyhow::Result<HttpResponse> {
        let request = Request::post(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::HOST, host)
            .header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(Full::new(Bytes::from(serde_json::to_vec(json)?)))?).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<HttpResponse> {
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(HttpResponse { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(self.timeout, exchange).await?
    }
}

impl HttpResponse {
    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            anyhow::anyhow!("{}: {error}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
