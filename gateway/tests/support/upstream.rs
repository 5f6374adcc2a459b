//! A fake model server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How it answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    /// Status 200, echoes the body.
    Good,
    /// Status 200, reports an answer from the cache.
    Cached,
    /// Status 200, reports this number of outputs with a NaN.
    Nan(&'static str),
    /// Status 200, reports a prediction.
    Predicts(String),
    /// Answers with this status.
    Status(u16),
    /// Answers after this time.
    Slow(Duration),
    Hang,
    /// Reads the request and closes the connection.
    Reset,
    /// Announces more than it sends, and closes the connection.
    Truncate,
    /// Sends the head and nothing more.
    HangInBody,
    /// Status 200 with a body of this many bytes.
    Large(usize),
    /// A gRPC answer with this status in the trailers.
    Grpc(&'static str),
    /// A gRPC answer without a body, with this status in the headers.
    GrpcTrailersOnly(&'static str),
}

pub struct Upstream {
    pub addr: SocketAddr,
    pub name: &'static str,
    pub served: Arc<AtomicUsize>,
    pub last: Arc<Mutex<Option<Parts>>>,
    mood: Arc<Mutex<Mood>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    name: &'static str,
    served: Arc<AtomicUsize>,
    mood: Arc<Mutex<Mood>>,
    last: Arc<Mutex<Option<Parts>>>,
}

impl Upstream {
    pub async fn start(name: &'static str, mood: Mood) -> Self {
        Self::on(TcpListener::bind(super::loopback()).await.unwrap(), name, mood)
    }

    /// Starts on a port that was bound before: connections opened in the meantime are served now.
    pub fn on(listener: TcpListener, name: &'static str, mood: Mood) -> Self {
        let addr = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(mood));
        let (served, last) =
            (Arc::<AtomicUsize>::default(), Arc::<Mutex<Option<Parts>>>::default());
        let shared = Shared {
            name,
            served: Arc::clone(&served),
            mood: Arc::clone(&mood),
            last: Arc::clone(&last),
        };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self { addr, name, served, last, mood, task }
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Simulates a crash: closes the port and all connections.
    pub fn crash(&self) {
        self.task.abort();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address without a listener.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind(super::loopback()).await.unwrap().local_addr().unwrap()
}

async fn serve(stream: TcpStream, shared: Shared) {
    let service = service_fn(move |request| answer(shared.clone(), request));
    // In the moods that close the connection, it ends with an error.
    drop(
        auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

async fn answer(shared: Shared, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    let (parts, body) = request.into_parts();
    let grpc = parts.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
    *shared.last.lock().unwrap() = Some(parts);
    let body = body.collect().await.map_err(|_| Refused)?.to_bytes();
    shared.served.fetch_add(1, Ordering::SeqCst);
    let mood = shared.mood.lock().unwrap().clone();
    let mut response = match mood {
        Mood::Good if grpc => grpc_answer(body, "0"),
        Mood::Good => whole(StatusCode::OK, body),
        Mood::Cached => {
            let mut response = whole(StatusCode::OK, body);
            response.headers_mut().insert("x-slipway-cache", HeaderValue::from_static("hit"));
            response
        }
        Mood::Nan(outputs) => {
            let mut response = whole(StatusCode::OK, body);
            response
                .headers_mut()
                .insert("x-slipway-nan-outputs", HeaderValue::from_static(outputs));
            response
        }
        Mood::Predicts(report) => {
            let mut response =
                if grpc { grpc_answer(body, "0") } else { whole(StatusCode::OK, body) };
            let headers = response.headers_mut();
            headers.insert("x-slipway-prediction", HeaderValue::from_str(&report).unwrap());
            // Headers that only the gateway may set.
            headers.insert("x-slipway-prediction-id", HeaderValue::from_static("v2.mine"));
            headers.insert("x-slipway-revision", HeaderValue::from_static("mine"));
            response
        }
        Mood::Status(status) => whole(StatusCode::from_u16(status).unwrap(), "bad".into()),
        Mood::Slow(time) => {
            tokio::time::sleep(time).await;
            whole(StatusCode::OK, body)
        }
        Mood::Hang => std::future::pending().await,
        Mood::Reset => return Err(Refused),
        Mood::Truncate => {
            let mut response = frames(
                vec![Ok(Frame::data("half".into())), Err(std::io::Error::other("cut"))],
                false,
            );
            response.headers_mut().insert("content-length", HeaderValue::from_static("8"));
            response
        }
        Mood::HangInBody => frames(vec![Ok(Frame::data("half".into()))], true),
        Mood::Large(size) => whole(StatusCode::OK, vec![b'x'; size].into()),
        Mood::Grpc(status) => grpc_answer(body, status),
        Mood::GrpcTrailersOnly(status) => {
            let mut response = whole(StatusCode::OK, Bytes::new());
            response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
            response
        }
    };
    response.headers_mut().insert("x-upstream", HeaderValue::from_static(shared.name));
    Ok(response)
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

fn whole(status: StatusCode, body: Bytes) -> Response<Body> {
    let body =
        http_body_util::Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn frames(frames: Vec<Result<Frame<Bytes>, std::io::Error>>, hang: bool) -> Response<Body> {
    use futures::StreamExt;
    let frames = futures::stream::iter(frames);
    let body = if hang {
        StreamBody::new(frames.chain(futures::stream::pending())).boxed_unsync()
    } else {
        StreamBody::new(frames).boxed_unsync()
    };
    Response::new(body)
}

fn grpc_answer(body: Bytes, status: &'static str) -> Response<Body> {
    let trailers = HeaderMap::from_iter([
        (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status)),
        (http::HeaderName::from_static("x-trailer"), HeaderValue::from_static("kept")),
    ]);
    let mut response = frames(vec![Ok(Frame::data(body)), Ok(Frame::trailers(trailers))], false);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
