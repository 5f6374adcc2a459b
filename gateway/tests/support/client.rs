//! A plain client.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

pub type Http = Client<HttpConnector, Full<Bytes>>;

/// An HTTP/1.1 client with a pool. Like every pooling client it resends a request that was not sent
/// because its connection was closed.
pub fn http1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// An HTTP/2 client with prior knowledge.
pub fn http2() -> Http {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    /// The raw body, which may not be text.
    pub bytes: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status of a gRPC call, in the headers or trailers.
    pub fn grpc_status(&self) -> Option<&str> {
        let trailers = self.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        trailers.or_else(|| self.headers.get("grpc-status")).map(|value| value.to_str().unwrap())
    }
}

pub fn infer(gateway: SocketAddr) -> request::Builder {
    Request::post(format!("http://{gateway}/v2/models/digits/infer"))
        .header("content-type", "application/json")
}

pub async fn send(client: &Http, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let response: Response<_> = client.request(request).await.map_err(|error| {
        // hyper 1.12's own client (client.rs of its h2, "Check poll_ready() again") drops a stream
        // that it has just opened when a graceful GOAWAY arrives at that moment, although the
        // server still answers it.
        let text = format!("{error:?}");
        let kind = match () {
            () if error.is_connect() => "refused",
            () if text.contains("GoAway(b\"\", NO_ERROR, Remote)") => "gave up",
            () => "lost",
        };
        format!("{kind}: {text}")
    })?;
    whole(response).await
}

async fn whole(response: Response<Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body, bytes, trailers })
}

/// A gRPC call on a new connection, with any `:authority`; `headers` are added to those of gRPC.
pub async fn grpc<B>(
    gateway: SocketAddr,
    authority: &str,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: B,
) -> Result<Answer, String>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(gateway).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::post(format!("http://{authority}{path}"))
        .header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.header("te", "trailers").body(body).unwrap()).await;
    let answer = whole(response.map_err(|error| format!("{error:?}"))?).await;
    connection.abort();
    answer
}

/// Sends one prediction request.
pub async fn predict(client: &Http, gateway: SocketAddr) -> Answer {
    send(client, infer(gateway).body(Full::from("{\"inputs\":[]}")).unwrap()).await.unwrap()
}

pub async fn get(client: &Http, url: String) -> Answer {
    send(client, Request::get(url).body(Full::default()).unwrap()).await.unwrap()
}
