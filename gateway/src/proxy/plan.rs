//! A request, read and ready to be sent as often as it must be.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderMap, Method, Request, Uri, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::Refusal,
    grpc, headers,
    upload::{ClientBody, Stream, Upload},
};
use crate::{
    affinity::{fingerprint, fingerprint_grpc},
    buffer::{Replay, Reservation, Whole},
    gateway::Gateway,
    model::TimeoutHeaders,
    upstream::Protocol,
};

/// A request towards an arm.
#[derive(Debug)]
pub struct Plan {
    method: Method,
    path: PathAndQuery,
    authority: Option<Authority>,
    headers: HeaderMap,
    /// Whether the client speaks gRPC.
    pub grpc: bool,
    /// Whether the request may run twice: predictions and reads are pure.
    pub pure: bool,
    /// Equal for equal requests, when they should meet the same pod.
    pub affinity: Option<u64>,
    body: Source,
}

#[derive(Debug)]
enum Source {
    Whole(Arc<Whole>),
    /// Goes once; the lock is there because two attempts may hold the plan at one time.
    Stream(Mutex<Option<Box<Stream>>>),
}

enum Read {
    Whole(Whole),
    Stream(Box<Stream>),
}

impl Plan {
    /// Reads a request. Bodies within bounds are read whole, so that they can be sent again.
    ///
    /// # Errors
    /// When the body does not come, is too large, or breaks off.
    pub async fn read(
        gateway: &Gateway,
        mut parts: Parts,
        body: ClientBody,
        peer: IpAddr,
        deadline: Instant,
    ) -> Result<Self, Refusal> {
        let grpc = grpc::is_grpc(&parts.headers);
        let pure = is_pure(&parts, grpc);
        headers::for_upstream(&mut parts, peer);
        let max_body = gateway.settings.max_body;
        if body.rest.size_hint().lower().saturating_add(body.length() as u64) > max_body {
            return Err(Refusal::BodyTooLarge);
        }
        let whole = if grpc && !grpc::is_known_unary(parts.uri.path()) {
            Read::Stream(passing(body, max_body))
        } else {
            timeout_at(deadline, read_whole(gateway, body)).await.map_err(|_| Refusal::BodyTimeout)??
        };
        let body = match whole {
            Read::Whole(whole) => Source::Whole(Arc::new(whole)),
            Read::Stream(stream) => Source::Stream(Mutex::new(Some(stream))),
        };
        let authority = parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self { method: parts.method, path, authority, headers: parts.headers, grpc, pure, affinity: None, body })
    }

    /// Whether the request can be sent more than once.
    pub fn is_whole(&self) -> bool {
        matches!(self.body, Source::Whole(_))
    }

    /// Makes equal predictions meet the same pod of whatever revision they go to.
    pub fn seek_affinity(&mut self) {
        let path = self.path.path();
        let prediction = self.method == Method::POST && (path.ends_with("/infer") || path.ends_with("/ModelInfer"));
        if let (true, Source::Whole(whole)) = (prediction, &self.body) {
            let alike = if self.grpc { fingerprint_grpc } else { fingerprint };
            self.affinity = Some(alike(path, &whole.chunks));
        }
    }

    /// Tells the pod how long it may take, where the client names no time: the pod's own default is another one. The pod's clock begins later
    /// than ours, so it is ours that ends a request.
    pub fn name_timeout(&mut self, timeout: &TimeoutHeaders) {
        let (name, value) =
            if self.grpc { (grpc::TIMEOUT, &timeout.grpc) } else { (headers::TIMEOUT, &timeout.milliseconds) };
        self.headers.entry(name).or_insert_with(|| value.clone());
    }

    /// Protocol towards the pod.
    pub fn protocol(&self) -> Protocol {
        if self.grpc { Protocol::Http2 } else { Protocol::Http1 }
    }

    /// The client's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The request for the next attempt; none when its body has gone with an earlier one.
    pub fn request(&self) -> Option<Request<Upload>> {
        let body = match &self.body {
            Source::Whole(whole) => Upload::Replay(Replay::new(Arc::clone(whole))),
            Source::Stream(stream) => Upload::Stream(stream.lock().unwrap_or_else(PoisonError::into_inner).take()?),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        match self.protocol() {
            Protocol::Http1 => *request.uri_mut() = Uri::from(self.path.clone()),
            Protocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = self.http2_uri();
                // Said by `:authority`.
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

    /// Takes back a request that was never sent.
    pub fn take_back(&self, request: Request<Upload>) {
        if let (Source::Stream(stream), Upload::Stream(unsent)) = (&self.body, request.into_body()) {
            *stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(unsent);
        }
    }
}

/// A prediction is a pure function. So are reads. Feedback is at-least-once by its own ids, so it may be repeated as well: what it
/// would cost to lose a label, and to answer a client with a failure of the candidate, is more than a label counted twice.
fn is_pure(parts: &Parts, grpc: bool) -> bool {
    let path = parts.uri.path();
    let prediction = || {
        let last = path.rsplit('/').next().unwrap_or_default();
        let verb = last.rsplit(':').next().unwrap_or_default();
        ["infer", "generate", "predict", "explain", "feedback", "invocations", "predictions"].contains(&verb)
    };
    match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS => true,
        Method::POST if grpc => grpc::is_known_unary(path),
        Method::POST => prediction(),
        _ => false,
    }
}

async fn read_whole(gateway: &Gateway, mut body: ClientBody) -> Result<Read, Refusal> {
    let (max, max_body) = (gateway.settings.max_buffered_request, gateway.settings.max_body);
    let mut length = body.length();
    if length == 0 && body.rest.is_end_stream() {
        return Ok(Read::Whole(Whole::default()));
    }
    let mut reservation = Reservation::new(&gateway.memory);
    let announced = body.rest.size_hint().lower().saturating_add(length as u64);
    if announced > max as u64 || !reservation.grow(length) {
        return Ok(Read::Stream(passing(body, max_body)));
    }
    let mut trailers = None;
    while let Some(frame) = body.rest.frame().await {
        match frame.map_err(|_| Refusal::BadBody)?.into_data() {
            Ok(data) => {
                length += data.len();
                let fits = length <= max && reservation.grow(data.len());
                body.read.push(data);
                if !fits {
                    return Ok(Read::Stream(passing(body, max_body)));
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Read::Whole(Whole { chunks: body.read, trailers, reservation: Some(reservation) }))
}

fn passing(body: ClientBody, max_body: u64) -> Box<Stream> {
    let allowed = max_body.saturating_sub(body.length() as u64);
    Box::new(Stream { prefix: body.read.into(), rest: body.rest, allowed })
}

/// When the client must have its answer: the ModelDeployment's timeout, or less when the client says so.
pub fn deadline(now: Instant, timeout: Duration, headers: &HeaderMap) -> Instant {
    let own = headers.get(headers::TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
    let own = own.map(Duration::from_millis).or_else(|| grpc::timeout(headers));
    now + own.map_or(timeout, |own| own.min(timeout))
}
