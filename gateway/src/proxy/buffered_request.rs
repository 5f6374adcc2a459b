//! A request that has been read and can be sent repeatedly.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use parking_lot::Mutex;
use slipway_gateway_policy::affinity::{grpc_fingerprint, request_fingerprint};
use slipway_gateway_policy::config::PodSettings;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_policy::share::{ByteReservation, PoolShare};
use slipway_gateway_routing::model::{LimitHeaders, RoutedModel};
use slipway_gateway_routing::settings::ProcessSettings;
use slipway_gateway_upstream::buffer::{BodyBuffer, BodyPrefix, BufferedBody, ReplayBody};
use slipway_gateway_upstream::send::UpstreamProtocol;
use slipway_gateway_upstream::upload::{ClientBody, STREAM_OVERHEAD, StreamedUpload, UploadBody};
use tokio::time::{Instant, timeout_at};

use super::headers;

/// A request towards an arm.
#[derive(Debug)]
pub struct BufferedRequest {
    method: Method,
    path: PathAndQuery,
    authority: Option<Authority>,
    headers: HeaderMap,
    /// Whether it is a gRPC request.
    pub grpc: bool,
    /// Whether the request may run twice: reads are pure, and so are predictions unless the spec
    /// disables replays.
    pub idempotent: bool,
    /// Whether its answer is a prediction, which gets an id.
    pub is_prediction: bool,
    /// Whether it came through the private port, from a client that may see which revision
    /// answers.
    pub private: bool,
    /// Fingerprint of requests that should reach the same pod when they are equal.
    pub affinity: Option<u64>,
    body: BodySource,
}

#[derive(Debug)]
enum BodySource {
    Buffered(Arc<BufferedBody>),
    /// Can be sent once; the lock is needed because two attempts may share the request.
    Streaming(Mutex<Option<Box<StreamedUpload>>>),
}

enum ReadBody {
    Buffered(BufferedBody),
    Streaming(Box<StreamedUpload>),
}

impl BufferedRequest {
    /// Reads a request. Bodies within the limits are buffered, so that they can be sent again.
    ///
    /// # Errors
    /// When the body does not arrive in time, is too large, or is truncated.
    pub async fn read(
        settings: &ProcessSettings,
        model: &RoutedModel,
        mut parts: Parts,
        mut body: ClientBody,
        deadline: Instant,
    ) -> Result<Self, RequestRefusal> {
        let grpc = grpc::is_grpc(&parts.headers);
        let (pure, predicts) =
            (is_idempotent(&parts, grpc, model.config.replay), is_prediction(&parts, grpc));
        headers::prepare_for_upstream(&mut parts, body.peer());
        if body.rest_hint().lower().saturating_add(body.read_ahead.len() as u64) > settings.max_body
        {
            return Err(RequestRefusal::BodyTooLarge);
        }
        let whole = if grpc && !grpc::is_known_unary(parts.uri.path()) {
            let (read, memory) = (std::mem::take(&mut body.read_ahead), &model.shares.memory);
            stream_body(
                settings,
                memory,
                body,
                BodyPrefix::new(BodyBuffer::new(memory, None), read),
            )?
        } else {
            timeout_at(deadline, read_body(settings, model, body))
                .await
                .map_err(|_| RequestRefusal::BodyTimeout)??
        };
        let body = match whole {
            ReadBody::Buffered(whole) => BodySource::Buffered(Arc::new(whole)),
            ReadBody::Streaming(stream) => BodySource::Streaming(Mutex::new(Some(stream))),
        };
        let authority =
            parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self {
            method: parts.method,
            path,
            authority,
            headers: parts.headers,
            grpc,
            idempotent: pure,
            is_prediction: predicts,
            private: false,
            affinity: None,
            body,
        })
    }

    /// Whether the request can be sent more than once.
    pub fn is_replayable(&self) -> bool {
        matches!(self.body, BodySource::Buffered(_))
    }

    /// Sends equal predictions to the same pod of whichever revision is chosen.
    pub fn set_affinity(&mut self) {
        let path = self.path.path();
        let prediction = self.method == Method::POST
            && (path.ends_with("/infer") || path.ends_with("/ModelInfer"));
        if let (true, BodySource::Buffered(whole)) = (prediction, &self.body) {
            let alike = if self.grpc { grpc_fingerprint } else { request_fingerprint };
            self.affinity = Some(alike(path, &whole.chunks));
        }
    }

    /// Sets the time limit for the pod where the client sends none, because the pod's own default
    /// differs. The pod's clock starts later, so the gateway's limit ends a request first. Also
    /// sets the size limit for bodies where it differs from the pod's default, overriding any value
    /// of the client.
    pub fn set_limit_headers(&mut self, limits: &LimitHeaders) {
        let (name, value) = if self.grpc {
            (grpc::TIMEOUT, &limits.grpc)
        } else {
            (headers::TIMEOUT, &limits.milliseconds)
        };
        self.headers.entry(name).or_insert_with(|| value.clone());
        if let Some(max_request) = &limits.max_request {
            self.headers.insert(headers::MAX_REQUEST, max_request.clone());
        } else {
            self.headers.remove(headers::MAX_REQUEST);
        }
    }

    /// Adds the proof for the pod that the client has presented the token.
    pub fn set_access_proof(&mut self, proof: HeaderValue) {
        self.headers.insert(headers::ACCESS, proof);
    }

    /// Adds the job settings of the current spec for the pod, overriding any values of the client.
    pub fn set_pod_settings(&mut self, settings: &PodSettings) {
        let last = self.path.path().rsplit('/').next().unwrap_or_default();
        let PodSettings { max_jobs, callback_allow } = settings;
        let trace_headers: &[(HeaderName, &Option<HeaderValue>)] = match last {
            "jobs" => &[(headers::MAX_JOBS, max_jobs), (headers::CALLBACK_ALLOW, callback_allow)],
            _ => return,
        };
        for (name, value) in trace_headers {
            match value {
                Some(value) => drop(self.headers.insert(name, value.clone())),
                None => drop(self.headers.remove(name)),
            }
        }
    }

    /// Protocol towards the pod.
    pub fn protocol(&self) -> UpstreamProtocol {
        if self.grpc { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 }
    }

    /// The client's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The request for the next attempt; `None` when an earlier attempt has consumed its body.
    pub fn next_attempt(&self) -> Option<Request<UploadBody>> {
        let body = match &self.body {
            BodySource::Buffered(whole) => UploadBody::Replay(ReplayBody::new(Arc::clone(whole))),
            BodySource::Streaming(stream) => UploadBody::Stream(stream.lock().take()?),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        match self.protocol() {
            UpstreamProtocol::Http1 => *request.uri_mut() = Uri::from(self.path.clone()),
            UpstreamProtocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = self.http2_uri();
                // Replaced by `:authority`.
                request.headers_mut().remove(HOST);
            }
        }
        Some(request)
    }

    fn http2_uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.authority.clone().or(Some(Authority::from_static("localhost")));
        parts.path_and_query = Some(self.path.clone());
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Restores the body of a request that was never sent.
    pub fn restore_body(&self, request: Request<UploadBody>) {
        if let (BodySource::Streaming(stream), UploadBody::Stream(unsent)) =
            (&self.body, request.into_body())
        {
            *stream.lock() = Some(unsent);
        }
    }
}

/// Predictions and reads are pure functions. Without `replay`, only reads count as such.
fn is_idempotent(parts: &Parts, grpc: bool, replay: bool) -> bool {
    match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS => true,
        Method::POST if !replay => false,
        Method::POST if grpc => grpc::is_known_unary(parts.uri.path()),
        Method::POST => is_prediction(parts, grpc),
        _ => false,
    }
}

/// Whether the answer is a prediction, which gets an id.
fn is_prediction(parts: &Parts, grpc: bool) -> bool {
    let last = parts.uri.path().rsplit('/').next().unwrap_or_default();
    let verb = last.rsplit(':').next().unwrap_or_default();
    let verbs = ["infer", "generate", "predict", "explain", "invocations", "predictions"];
    parts.method == Method::POST && if grpc { verb == "ModelInfer" } else { verbs.contains(&verb) }
}

async fn read_body(
    settings: &ProcessSettings,
    model: &RoutedModel,
    mut body: ClientBody,
) -> Result<ReadBody, RequestRefusal> {
    let (memory, read) = (&model.shares.memory, std::mem::take(&mut body.read_ahead));
    let max = settings.max_buffered_request.min(model.config.max_request);
    if read.is_empty() && body.is_end() {
        return Ok(ReadBody::Buffered(BufferedBody::default()));
    }
    let (rest, begun) = (body.rest_hint(), read.len() as u64);
    let mut buffer = BodyBuffer::new(memory, rest.exact().map(|rest| rest + begun));
    if rest.lower().saturating_add(begun) > max as u64 {
        return stream_body(settings, memory, body, BodyPrefix::new(buffer, read));
    }
    let (mut data, mut trailers) = (read, None);
    loop {
        let left =
            if buffer.length() + data.len() <= max { buffer.push(&data).len() } else { data.len() };
        if left > 0 {
            let unkept = data.split_off(data.len() - left);
            return stream_body(settings, memory, body, BodyPrefix::new(buffer, unkept));
        }
        let Some(frame) = body.next_frame().await else {
            return Ok(ReadBody::Buffered(buffer.finish(trailers)));
        };
        match frame.map_err(|error| error.refusal())?.into_data() {
            Ok(next) => data = next,
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                data = Bytes::new();
            }
        }
    }
}

/// A streamed body: the buffered part, the last piece that was read but not buffered, and the rest.
fn stream_body(
    settings: &ProcessSettings,
    memory: &Arc<PoolShare>,
    body: ClientBody,
    prefix: BodyPrefix,
) -> Result<ReadBody, RequestRefusal> {
    let allowed = settings.max_body.saturating_sub(prefix.len() as u64);
    let mut reservation = ByteReservation::new(memory);
    if !reservation.overdraw(STREAM_OVERHEAD) {
        return Err(RequestRefusal::Overloaded);
    }
    Ok(ReadBody::Streaming(Box::new(StreamedUpload {
        prefix,
        body,
        allowed_bytes: allowed,
        reservation,
    })))
}

/// The deadline of the answer: the ModelDeployment's timeout, or the client's own if it is shorter.
pub fn request_deadline(now: Instant, timeout: Duration, headers: &HeaderMap) -> Instant {
    let own = headers.get(headers::TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
    let own = own.map(Duration::from_millis).or_else(|| grpc::client_timeout(headers));
    now + own.map_or(timeout, |own| own.min(timeout))
}
