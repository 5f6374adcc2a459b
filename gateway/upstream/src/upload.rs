//! The body of a request, as the client sends it and as it is sent to a pod.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::message::{ModelName, find_model_name};
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_policy::share::{ByteReservation, RequestPermit};
use slipway_gateway_policy::uploads::{PendingUploads, UploadGuard};
use thiserror::Error;

use crate::buffer::{BodyPrefix, ReplayBody};

/// Number of bytes of a first message that are searched for the model name. Clients that write
/// fields in order have it in the first hundred bytes.
const MAX_NAME_PREFIX: usize = 4096;

/// Smaller streamed pieces are copied, because each keeps the whole buffer into which it was read.
const COPY_BELOW_BYTES: usize = 8 << 10;

/// A client's body: the part that was read to determine the target of the request, and the rest.
#[derive(Debug)]
pub struct ClientBody {
    /// The part that was read already.
    pub read_ahead: Bytes,
    rest: Incoming,
    peer: IpAddr,
    /// The permit of its request while the rest is arriving.
    held_permit: Option<(Arc<PendingUploads>, Arc<RequestPermit>)>,
    /// Present when it had to be waited for.
    arrival: Option<UploadGuard>,
}

impl ClientBody {
    /// Creates a body of which nothing was read yet.
    pub fn new(rest: Incoming, peer: IpAddr) -> Self {
        Self { read_ahead: Bytes::new(), rest, peer, held_permit: None, arrival: None }
    }

    /// The client's address.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Sets the permit of its request. Another request may get it while this body is arriving.
    pub fn hold_permit(&mut self, uploads: &Arc<PendingUploads>, place: &Arc<RequestPermit>) {
        self.arrival = None;
        self.held_permit = Some((Arc::clone(uploads), Arc::clone(place)));
    }

    /// Whether the body is complete.
    pub fn is_end(&self) -> bool {
        self.rest.is_end_stream()
    }

    /// Number of bytes still to come.
    pub fn rest_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }

    /// The next piece.
    pub async fn next_frame(&mut self) -> Option<Result<Frame<Bytes>, UploadError>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) {
            if frame.is_none() || self.rest.is_end_stream() {
                self.arrival = None;
            }
            return Poll::Ready(frame.map(|frame| Ok(frame?)));
        }
        let Some((uploads, place)) = &self.held_permit else { return Poll::Pending };
        let arriving = self.arrival.get_or_insert_with(|| uploads.register(self.peer, place));
        ready!(arriving.poll_ended(cx));
        Poll::Ready(Some(Err(UploadError::TooSlow)))
    }

    /// The model name in the first gRPC message, once enough of it has been read; empty when the
    /// message has none in the searched part.
    ///
    /// # Errors
    /// When the body is truncated, or the message cannot be parsed.
    pub async fn read_model_name(&mut self) -> Result<Vec<u8>, RequestRefusal> {
        let mut begin = Vec::new();
        while begin.len() < MAX_NAME_PREFIX {
            let Some(frame) = self.next_frame().await else { break };
            // Trailers: the body ends here.
            let Ok(data) = frame.map_err(|error| error.refusal())?.into_data() else { break };
            begin.extend_from_slice(&data);
            match find_model_name(&begin[..begin.len().min(MAX_NAME_PREFIX)]) {
                ModelName::Found(name) => {
                    let name = name.to_vec();
                    self.read_ahead = begin.into();
                    return Ok(name);
                }
                ModelName::Compressed => return Err(RequestRefusal::UnreadableName),
                ModelName::Incomplete => {}
            }
        }
        self.read_ahead = begin.into();
        Ok(Vec::new())
    }
}

/// Why a body cannot be read further.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The client's connection broke.
    #[error("the client's body broke off")]
    Client(#[from] hyper::Error),
    /// Too many bytes.
    #[error("the body is larger than is allowed")]
    TooLarge,
    /// Its permit was transferred to another request.
    #[error("the body came too slowly while others waited for its place")]
    TooSlow,
}

impl UploadError {
    /// The refusal that the client receives.
    pub fn refusal(&self) -> RequestRefusal {
        match self {
            Self::Client(_) => RequestRefusal::BadBody,
            Self::TooLarge => RequestRefusal::BodyTooLarge,
            Self::TooSlow => RequestRefusal::BodyTooSlow,
        }
    }

    /// The failure of the arm that received the body.
    pub fn failure(&self) -> ArmFailure {
        match self {
            Self::Client(_) => ArmFailure::ClientLeft,
            Self::TooLarge => ArmFailure::TooLarge,
            Self::TooSlow => ArmFailure::TooSlow,
        }
    }
}

/// A body towards a pod.
#[derive(Debug)]
pub enum UploadBody {
    /// Buffered in memory; can be sent again.
    Replay(ReplayBody),
    /// Streamed; cannot be sent again.
    Stream(Box<StreamedUpload>),
}

/// Memory that a streamed body uses, in bytes: its part of the buffers of two connections.
pub const STREAM_OVERHEAD: usize = 64 << 10;

/// A streamed body: the part that was read already, and the rest.
#[derive(Debug)]
pub struct StreamedUpload {
    /// The part that was read already.
    pub prefix: BodyPrefix,
    /// The rest.
    pub body: ClientBody,
    /// Maximum number of remaining bytes.
    pub allowed_bytes: u64,
    /// The memory reserved in addition to the prefix.
    pub reservation: ByteReservation,
}

impl StreamedUpload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Some(chunk) = self.prefix.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        self.body.poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                let frame = frame?;
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.allowed_bytes =
                    self.allowed_bytes.checked_sub(bytes).ok_or(UploadError::TooLarge)?;
                Ok(frame.map_data(|data| {
                    if data.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&data) } else { data }
                }))
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        let prefix = self.prefix.len() as u64;
        let rest = self.body.rest_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + prefix);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + prefix);
        }
        hint
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match &mut *self {
            // The error type has no values, so the map is never called.
            Self::Replay(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Replay(body) => body.is_end_stream(),
            Self::Stream(body) => body.prefix.is_empty() && body.body.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Replay(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
