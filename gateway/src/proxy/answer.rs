//! The answer to a client: an arm's answer, buffered or streamed, or an answer of the gateway
//! itself.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::outcome::RequestOutcome;
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_upstream::buffer::{BodyPrefix, BufferedBody, ReplayBody};
use slipway_gateway_upstream::download::DownloadBody;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use super::call_guards::{ArmCall, ClientCall};
use super::headers::holds_nan;

/// Why a body ends prematurely.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The pod's connection broke.
    #[error("the model server's answer broke off")]
    Broken(#[from] hyper::Error),
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
}

/// The body of an answer to a client.
#[derive(Debug)]
pub enum AnswerBody {
    /// Buffered in memory.
    Buffered(ReplayBody),
    /// Streamed from the pod.
    Streaming(Box<StreamingBody>),
}

impl AnswerBody {
    /// A short text.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::buffered(BufferedBody { chunks: vec![text.into()], ..BufferedBody::default() })
    }

    /// A body from memory.
    pub fn buffered(whole: BufferedBody) -> Self {
        Self::Buffered(ReplayBody::new(whole.into()))
    }
}

/// A streamed body that counts its request when it ends.
#[derive(Debug)]
pub struct StreamingBody {
    prefix: BodyPrefix,
    body: DownloadBody,
    deadline: Pin<Box<Sleep>>,
    arm: ArmCall,
    client: ClientCall,
    outcome: RequestOutcome,
    status: StatusCode,
    /// Whether it is an event stream, which counts as answered from its head on.
    event_stream: bool,
}

impl StreamingBody {
    /// Creates a body whose request ends with `outcome` unless an error occurs on the way.
    pub fn new(
        body: DownloadBody,
        deadline: Instant,
        arm: ArmCall,
        client: ClientCall,
        head: ResponseHead,
    ) -> Self {
        let deadline = Box::pin(sleep_until(deadline));
        let (outcome, status) = (head.outcome, head.status);
        let mut passing = Self {
            prefix: BodyPrefix::default(),
            body,
            deadline,
            arm,
            client,
            outcome,
            status,
            event_stream: head.is_event_stream,
        };
        if head.is_event_stream {
            passing.arm.mark_streaming();
        }
        passing.set_waiting(false);
        if passing.body.is_end_stream() {
            passing.close(outcome);
        }
        passing
    }

    /// Adds the part that was read already before the rest.
    pub fn with_prefix(mut self, prefix: BodyPrefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// A client that disconnects while the pod has sent nothing does so because of that delay; one
    /// that does not read has other reasons.
    fn set_waiting(&mut self, waiting: bool) {
        let waiting = waiting && !self.event_stream;
        self.arm.set_waiting(waiting);
        self.client.set_waiting(waiting);
    }

    fn close(&mut self, outcome: RequestOutcome) {
        self.arm.close(outcome);
        self.client.close(client_outcome(outcome, self.status));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(chunk) = self.prefix.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.set_waiting(frame.is_pending());
        let Poll::Ready(frame) = frame else {
            ready!(self.deadline.as_mut().poll(cx));
            self.arm.fail(ArmFailure::Deadline);
            self.client.close(RequestOutcome::Timeout);
            return Poll::Ready(Some(Err(BodyError::Deadline)));
        };
        match &frame {
            Some(Err(_)) => self.close(RequestOutcome::ServerError),
            None => self.close(self.outcome),
            Some(Ok(frame)) => {
                if let Some(outcome) = frame.trailers_ref().and_then(grpc::status_outcome) {
                    self.outcome = outcome;
                }
                if self.body.is_end_stream() {
                    self.close(self.outcome);
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn size_hint(&self) -> SizeHint {
        let prefix = self.prefix.len() as u64;
        match self.body.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + prefix),
            None => SizeHint::default(),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            // The error type has no values, so the map is never called.
            Self::Buffered(body) => {
                Pin::new(body).poll_frame(cx).map_err(|never: Infallible| match never {})
            }
            Self::Streaming(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(body) => body.is_end_stream(),
            Self::Streaming(body) => body.prefix.is_empty() && body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Buffered(body) => body.size_hint(),
            Self::Streaming(body) => body.size_hint(),
        }
    }
}

/// The information in the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The outcome, as far as the head determines it.
    pub outcome: RequestOutcome,
    pub status: StatusCode,
    /// Whether outputs contain a NaN: the model is faulty, or the request contained missing
    /// values.
    pub has_nan: bool,
    /// Whether an event stream follows.
    pub is_event_stream: bool,
}

impl ResponseHead {
    /// Reads the head of an answer. 429 means that the arm lacks capacity, hence `unavailable`
    /// rather than a client error.
    pub fn from_response(status: StatusCode, headers: &HeaderMap) -> Self {
        let outcome = match status {
            StatusCode::TOO_MANY_REQUESTS => RequestOutcome::Unavailable,
            _ if status.is_server_error() => RequestOutcome::ServerError,
            _ if status.is_client_error() => RequestOutcome::ClientError,
            _ => grpc::status_outcome(headers).unwrap_or(RequestOutcome::Success),
        };
        let events = headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        Self { outcome, status, has_nan: holds_nan(headers), is_event_stream: events }
    }
}

/// The outcome for the client when an arm's request ended with `outcome`.
pub fn client_outcome(outcome: RequestOutcome, status: StatusCode) -> RequestOutcome {
    if status == StatusCode::TOO_MANY_REQUESTS { RequestOutcome::ClientError } else { outcome }
}

/// The answer to a refused request: JSON according to the Open Inference Protocol, or a gRPC
/// status.
pub fn refusal_response(refusal: RequestRefusal, grpc: bool) -> Response<AnswerBody> {
    if grpc {
        let mut response = Response::new(AnswerBody::buffered(BufferedBody::default()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(grpc::STATUS, HeaderValue::from_static(refusal.grpc_status()));
        if let Ok(message) = HeaderValue::from_str(&refusal.to_string()) {
            headers.insert(grpc::MESSAGE, message);
        }
        return response;
    }
    let mut response =
        json_response(refusal.status(), &serde_json::json!({ "error": refusal.to_string() }));
    if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// An answer in JSON.
pub fn json_response(status: StatusCode, value: &serde_json::Value) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::text(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
