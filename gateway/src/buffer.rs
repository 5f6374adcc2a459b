//! Bodies in memory: a bound over all requests together, and a body that can be sent more than once.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// Bytes that may be kept in memory by all requests together.
#[derive(Debug)]
pub struct Memory {
    left: AtomicUsize,
}

impl Memory {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    /// Bytes that are not taken.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// Bytes taken from [`Memory`] until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Reservation {
    /// Nothing yet.
    pub fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    /// Takes more, or nothing when there is not enough.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let taken = self.memory.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body: its pieces as they came, and its trailers.
#[derive(Debug, Default)]
pub struct Whole {
    /// Pieces in order.
    pub chunks: Vec<Bytes>,
    /// Trailers, of gRPC for example.
    pub trailers: Option<HeaderMap>,
    /// Keeps the memory taken as long as the body lives.
    pub reservation: Option<Reservation>,
}

impl Whole {
    /// All bytes of the pieces.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there are neither bytes nor trailers.
    pub fn is_empty(&self) -> bool {
        self.trailers.is_none() && self.len() == 0
    }
}

/// Sends a [`Whole`], once; make as many as there are attempts.
#[derive(Debug)]
pub struct Replay {
    whole: Arc<Whole>,
    next: usize,
    left: u64,
    trailers_sent: bool,
}

impl Replay {
    /// A body that sends `whole`.
    pub fn new(whole: Arc<Whole>) -> Self {
        let (left, trailers_sent) = (whole.len() as u64, whole.trailers.is_none());
        Self { whole, next: 0, left, trailers_sent }
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(chunk) = this.whole.chunks.get(this.next) {
            this.next += 1;
            this.left -= chunk.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        match this.whole.trailers.as_ref().filter(|_| !this.trailers_sent) {
            Some(trailers) => {
                this.trailers_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers_sent
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn memory_is_given_back() {
        let memory = Memory::new(10);
        let mut first = Reservation::new(&memory);
        assert!(first.grow(6) && !first.grow(6) && first.grow(4));
        assert_eq!(memory.left(), 0);
        drop(first);
        assert_eq!(memory.left(), 10);
    }

    #[tokio::test]
    async fn a_whole_body_is_sent_as_often_as_wanted() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let chunks = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let whole = Arc::new(Whole { chunks, trailers: Some(trailers.clone()), reservation: None });
        for _ in 0..2 {
            let body = Replay::new(Arc::clone(&whole));
            assert_eq!(body.size_hint().exact(), Some(3));
            let collected = body.collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&trailers));
            assert_eq!(collected.to_bytes(), "abc");
        }
    }
}
