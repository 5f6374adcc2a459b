//! The request's body, as the client sends it and on its way to a pod.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;

use super::answer::Refusal;
use crate::{
    buffer::Replay,
    message::{Named, named},
};

/// So much of a first message is looked at for the name of its model. Whoever writes fields in their order has it in the first hundred bytes.
const MOST_BEFORE_NAME: usize = 4096;

/// A client's body: what was read of it to find out whom it is for, and the rest.
#[derive(Debug)]
pub struct ClientBody {
    /// Read already; pieces that are not empty.
    pub read: Vec<Bytes>,
    /// Still to come.
    pub rest: Incoming,
}

impl ClientBody {
    /// Nothing was read yet.
    pub fn new(rest: Incoming) -> Self {
        Self { read: Vec::new(), rest }
    }

    /// Bytes that were read.
    pub fn length(&self) -> usize {
        self.read.iter().map(Bytes::len).sum()
    }

    /// The name of a model in the first message of gRPC, once enough of it has been read; empty when that has none, or not where it is looked for.
    ///
    /// # Errors
    /// When the body breaks off, or the message cannot be read.
    pub async fn model_name(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut begin = Vec::new();
        while begin.len() < MOST_BEFORE_NAME {
            let Some(frame) = self.rest.frame().await else { break };
            // Trailers: the body ends here.
            let Ok(data) = frame.map_err(|_| Refusal::BadBody)?.into_data() else { break };
            if data.is_empty() {
                continue;
            }
            begin.extend_from_slice(&data[..data.len().min(MOST_BEFORE_NAME - begin.len())]);
            self.read.push(data);
            match named(&begin) {
                Named::As(name) => return Ok(name.to_vec()),
                Named::Unreadable => return Err(Refusal::UnreadableName),
                Named::Unfinished => {}
            }
        }
        Ok(Vec::new())
    }
}

/// Why a body cannot go on.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The client's connection broke.
    #[error("the client's body broke off")]
    Client(#[from] hyper::Error),
    /// Too many bytes.
    #[error("the body is larger than is allowed")]
    TooLarge,
}

/// A body towards a pod.
#[derive(Debug)]
pub enum Upload {
    /// Kept in memory; can be sent again.
    Replay(Replay),
    /// Passes through; cannot be sent again.
    Stream(Box<Stream>),
}

/// A body that passes through: what was read of it already, and the rest.
#[derive(Debug)]
pub struct Stream {
    /// Read already.
    pub prefix: VecDeque<Bytes>,
    /// Still to come.
    pub rest: Incoming,
    /// Bytes that may still come.
    pub allowed: u64,
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Some(chunk) = self.prefix.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        Pin::new(&mut self.rest).poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                let frame = frame?;
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.allowed = self.allowed.checked_sub(bytes).ok_or(UploadError::TooLarge)?;
                Ok(frame)
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        let prefix = self.prefix.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + prefix);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + prefix);
        }
        hint
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match &mut *self {
            // The error type has no values, so the map is never called.
            Self::Replay(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Replay(body) => body.is_end_stream(),
            Self::Stream(body) => body.prefix.is_empty() && body.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Replay(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
