//! Sends a request to a pod, on an idle connection or on a new one.

use std::error::Error;

use http::{Request, Response};
use hyper::client::conn::TrySendError;
use slipway_gateway_policy::failure::ArmFailure;

use crate::download::DownloadBody;
use crate::endpoint::InFlightGuard;
use crate::upload::{UploadBody, UploadError};

/// How often a connection that turned out to be closed is replaced before the pod counts as
/// unreachable.
const MAX_STALE: usize = 8;

/// Protocol towards the pod. Everything except gRPC uses HTTP/1.1, which every server image
/// supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum SendError {
    /// It was never sent, and is handed back: it can safely be sent elsewhere.
    Unsent(Box<Request<UploadBody>>, String),
    /// It may have run.
    Broken {
        /// The error message.
        error: String,
        /// Whether it used a connection that had served before: the pod may have closed it at the
        /// same moment.
        reused: bool,
    },
    /// The client's own body failed.
    Upload(ArmFailure),
}

impl SendError {
    fn from_hyper(error: &hyper::Error, reused: bool) -> Self {
        if !error.is_user() {
            return Self::Broken { error: error.to_string(), reused };
        }
        let cause = error.source().and_then(|source| source.downcast_ref());
        Self::Upload(cause.map_or(ArmFailure::ClientLeft, UploadError::failure))
    }
}

/// Sends a request to the endpoint of `visit`; `anew` requires a new connection (HTTP/2 detects
/// closed ones itself).
///
/// # Errors
/// [`SendError`] states whether the request may have run.
pub async fn send_request(
    visit: InFlightGuard,
    request: Request<UploadBody>,
    protocol: UpstreamProtocol,
    anew: bool,
) -> Result<Response<DownloadBody>, SendError> {
    match protocol {
        UpstreamProtocol::Http1 => send_http1(visit, request, anew).await,
        UpstreamProtocol::Http2 => send_http2(visit, request).await,
    }
}

async fn send_http1(
    visit: InFlightGuard,
    mut request: Request<UploadBody>,
    anew: bool,
) -> Result<Response<DownloadBody>, SendError> {
    let pool = &visit.endpoint.pool;
    for _ in 0..MAX_STALE {
        let (mut link, reused) = match if anew { None } else { pool.take_idle() } {
            Some(link) => (link, true),
            // Boxed, because most requests reuse a connection.
            None => match Box::pin(pool.open_http1()).await {
                Ok(link) => (link, false),
                Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
            },
        };
        let sending = link.sender.try_send_request(request);
        match link.wait_for_answer(sending).await {
            Some(Ok(response)) => {
                let (parts, body) = response.into_parts();
                return Ok(Response::from_parts(parts, DownloadBody::new(body, Some(link), visit)));
            }
            other => request = take_unsent(other, reused)?,
        }
    }
    Err(SendError::Unsent(Box::new(request), "the pod closes every connection".to_owned()))
}

async fn send_http2(
    visit: InFlightGuard,
    mut request: Request<UploadBody>,
) -> Result<Response<DownloadBody>, SendError> {
    for _ in 0..MAX_STALE {
        let (mut link, call, reused) = match Box::pin(visit.endpoint.pool.acquire_http2()).await {
            Ok(found) => found,
            Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
        };
        let sending = link.sender.try_send_request(request);
        match link.wait_for_answer(sending).await {
            Some(Ok(response)) => {
                call.mark_answered();
                return Ok(response.map(|body| DownloadBody::new(body, None, visit)));
            }
            other => request = take_unsent(other, reused)?,
        }
    }
    Err(SendError::Unsent(Box::new(request), "the pod closes every connection".to_owned()))
}

/// The request, if it was handed back: it was never sent.
fn take_unsent<T>(
    failed: Option<Result<T, TrySendError<Request<UploadBody>>>>,
    reused: bool,
) -> Result<Request<UploadBody>, SendError> {
    match failed {
        Some(Err(mut failed)) => failed
            .take_message()
            .map_or_else(|| Err(SendError::from_hyper(&failed.into_error(), reused)), Ok),
        // The request and its body stayed in the channel.
        _ => Err(SendError::Broken { error: "the connection ended".to_owned(), reused }),
    }
}
