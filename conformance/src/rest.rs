//! An HTTP client that validates answers instead of trusting them.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::Value;

use crate::{Stop, ensure};

pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// The client of the server's REST API.
#[derive(Debug, Clone)]
pub(crate) struct RestClient {
    client: Client,
    base: String,
    pub(crate) model: String,
}

#[derive(Debug, Clone)]
pub(crate) struct RestResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl RestResponse {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(200).collect()
    }

    pub(crate) fn json(&self) -> Result<Value, Stop> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Stop::Fail(format!("status {}: not JSON ({e}): {}", self.status, self.text()))
        })
    }

    /// The JSON of an answer that must be a success.
    pub(crate) fn expect_success(&self) -> Result<Value, Stop> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.text());
        self.json()
    }

    /// Requires an error as specified: `{"error": "..."}` with 4xx or 5xx. Returns its text.
    pub(crate) fn expect_error(&self) -> Result<String, Stop> {
        ensure!(self.status >= 400, "status {} instead of an error: {}", self.status, self.text());
        let error = self.json()?.get("error").and_then(Value::as_str).map(str::to_owned);
        error.ok_or_else(|| {
            Stop::Fail(format!("status {}: no text in \"error\": {}", self.status, self.text()))
        })
    }
}

impl RestClient {
    pub(crate) fn new(base: &str, model: &str, timeout: Duration) -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().tls_certs_only([]).timeout(timeout).build();
        let client = client.context("cannot make a client")?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), model: model.to_owned() })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<RestResponse, Stop> {
        let response = request.send().await.context("no answer")?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.context("the answer broke off")?;
        Ok(RestResponse { status, headers, body })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<RestResponse, Stop> {
        self.send(self.client.get(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn request(&self, method: Method, path: &str) -> Result<RestResponse, Stop> {
        self.send(self.client.request(method, format!("{}{path}", self.base))).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: impl Into<reqwest::Body>,
    ) -> Result<RestResponse, Stop> {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(body);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send(request).await
    }

    pub(crate) fn infer_path(&self) -> String {
        format!("/v2/models/{}/infer", self.model)
    }

    pub(crate) async fn infer(&self, body: &Value) -> Result<RestResponse, Stop> {
        self.post(&self.infer_path(), &[], body.to_string()).await
    }

    /// Sends a JSON header followed by raw tensors.
    pub(crate) async fn infer_binary(
        &self,
        header: &Value,
        blobs: &[u8],
    ) -> Result<RestResponse, Stop> {
        let json = header.to_string();
        let headers = [
            (HEADER_LENGTH, json.len().to_string()),
            ("content-type", "application/octet-stream".to_owned()),
        ];
        self.post(&self.infer_path(), &headers, [json.as_bytes(), blobs].concat()).await
    }
}
