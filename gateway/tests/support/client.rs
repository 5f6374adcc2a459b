//! A plain client.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

pub type Http = Client<HttpConnector, Full<Bytes>>;

/// With a pool, HTTP/1.1. Like every pooling client it sends a request again that found its connection closed and was never sent.
pub fn http1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// HTTP/2 with prior knowledge.
pub fn http2() -> Http {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub fn infer(gateway: SocketAddr) -> request::Builder {
    Request::post(format!("http://{gateway}/v2/models/digits/infer")).header("content-type", "application/json")
}

pub async fn send(client: &Http, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let response: Response<_> = client.request(request).await.map_err(|error| {
        // hyper 1.12's own client (client.rs of its h2, "Check poll_ready() again") drops a stream that it has just opened when a
        // graceful GOAWAY comes in that moment, although the server goes on to answer it.
        let text = format!("{error:?}");
        let kind = match () {
            () if error.is_connect() => "refused",
            () if text.contains("GoAway(b\"\", NO_ERROR, Remote)") => "gave up",
            () => "lost",
        };
        format!("{kind}: {text}")
    })?;
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body, trailers })
}

/// One prediction.
pub async fn predict(client: &Http, gateway: SocketAddr) -> Answer {
    send(client, infer(gateway).body(Full::from("{\"inputs\":[]}")).unwrap()).await.unwrap()
}

pub async fn get(client: &Http, url: String) -> Answer {
    send(client, Request::get(url).body(Full::default()).unwrap()).await.unwrap()
}
