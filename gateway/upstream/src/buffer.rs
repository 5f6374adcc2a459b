//! Bodies in memory: they are accounted with the memory that they actually use, and can be sent
//! more than once.
//!
//! All pieces are copied. A received piece is a view into the read buffer of its connection and
//! keeps the whole buffer allocated: a client that sends single bytes would make each of them
//! occupy 8 KiB or more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use slipway_gateway_policy::share::{ByteReservation, PoolShare};

/// Larger bodies are stored in blocks of this size.
const BLOCK: usize = 64 << 10;
/// The first block of a body of unknown length.
const FIRST_BLOCK: usize = 4 << 10;
/// Memory of a block besides its bytes.
const BLOCK_OVERHEAD: usize = 64;

/// A body that is being read into memory.
#[derive(Debug)]
pub struct BodyBuffer {
    blocks: Vec<Bytes>,
    /// The block that is being filled.
    open: BytesMut,
    length: usize,
    /// The announced length, if known.
    expected_length: Option<usize>,
    reservation: ByteReservation,
}

impl BodyBuffer {
    /// Creates an empty buffer; `announced` is the expected length.
    pub fn new(share: &Arc<PoolShare>, announced: Option<u64>) -> Self {
        let announced = announced.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let (blocks, open) = (Vec::new(), BytesMut::new());
        Self {
            blocks,
            open,
            length: 0,
            expected_length: announced,
            reservation: ByteReservation::new(share),
        }
    }

    /// Number of stored bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Copies `data`, as far as memory is available, and returns the rest.
    pub fn push<'a>(&mut self, mut data: &'a [u8]) -> &'a [u8] {
        while !data.is_empty() {
            if self.open.len() == self.open.capacity() && !self.open_block(data.len()) {
                return data;
            }
            let (fits, rest) =
                data.split_at(data.len().min(self.open.capacity() - self.open.len()));
            self.open.extend_from_slice(fits);
            self.length += fits.len();
            data = rest;
        }
        data
    }

    fn open_block(&mut self, at_least: usize) -> bool {
        let size = match self.expected_length {
            // A body can be longer than announced only when the announcement was a lower bound.
            Some(announced) => announced.saturating_sub(self.length).max(at_least).min(BLOCK),
            None if self.length == 0 => at_least.clamp(FIRST_BLOCK, BLOCK),
            None => BLOCK,
        };
        if !self.reservation.grow(size + BLOCK_OVERHEAD) {
            return false;
        }
        self.close_block();
        self.open = BytesMut::with_capacity(size);
        true
    }

    fn close_block(&mut self) {
        let full = std::mem::take(&mut self.open);
        if !full.is_empty() {
            self.blocks.push(full.freeze());
        }
    }

    /// The stored blocks and their memory reservation.
    pub fn into_parts(mut self) -> (Vec<Bytes>, ByteReservation) {
        self.close_block();
        (self.blocks, self.reservation)
    }

    /// The complete body.
    pub fn finish(self, trailers: Option<HeaderMap>) -> BufferedBody {
        let (chunks, reservation) = self.into_parts();
        BufferedBody { chunks, trailers, reservation: Some(reservation) }
    }
}

/// The beginning of a body that is not buffered completely.
#[derive(Debug, Default)]
pub struct BodyPrefix {
    pieces: VecDeque<Bytes>,
    /// Reserves the memory until all of it has been passed on.
    reservation: Option<ByteReservation>,
}

impl BodyPrefix {
    /// Consists of the buffered pieces and the last piece, which was read but not buffered.
    pub fn new(buffer: BodyBuffer, unkept: Bytes) -> Self {
        let (kept, reservation) = buffer.into_parts();
        let pieces = kept.into_iter().chain([unkept]).filter(|piece| !piece.is_empty()).collect();
        Self { pieces, reservation: Some(reservation) }
    }

    /// The next piece.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front();
        if piece.is_none() {
            self.reservation = None;
        }
        piece
    }

    /// Number of remaining bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether nothing remains.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// A complete body: its pieces in order, and its trailers.
#[derive(Debug, Default)]
pub struct BufferedBody {
    /// Pieces in order.
    pub chunks: Vec<Bytes>,
    /// Trailers, for example of gRPC.
    pub trailers: Option<HeaderMap>,
    /// Reserves the memory while the body lives.
    pub reservation: Option<ByteReservation>,
}

impl BufferedBody {
    /// Total number of bytes.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there are neither bytes nor trailers.
    pub fn is_empty(&self) -> bool {
        self.trailers.is_none() && self.len() == 0
    }
}

/// Sends a [`BufferedBody`] once; create one per attempt.
#[derive(Debug)]
pub struct ReplayBody {
    body: Arc<BufferedBody>,
    next: usize,
    left: u64,
    trailers_sent: bool,
}

impl ReplayBody {
    /// A body that sends `whole`.
    pub fn new(whole: Arc<BufferedBody>) -> Self {
        let (left, trailers_sent) = (whole.len() as u64, whole.trailers.is_none());
        Self { body: whole, next: 0, left, trailers_sent }
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(chunk) = this.body.chunks.get(this.next) {
            this.next += 1;
            this.left -= chunk.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        match this.body.trailers.as_ref().filter(|_| !this.trailers_sent) {
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
    use slipway_gateway_policy::share::CapacityPool;

    use super::*;

    fn share(bytes: usize) -> Arc<PoolShare> {
        PoolShare::new(&CapacityPool::new(bytes))
    }

    #[test]
    fn pieces_of_one_byte_take_no_more_than_their_bytes() {
        let share = share(64 << 20);
        for announced in [Some(1 << 20), None] {
            let mut buffer = BodyBuffer::new(&share, announced);
            (0..1 << 20).for_each(|byte| assert!(buffer.push(&[byte as u8]).is_empty()));
            assert!(
                share.used() < (1 << 20) + BLOCK + FIRST_BLOCK + 18 * BLOCK_OVERHEAD,
                "{}",
                share.used()
            );
            let whole = buffer.finish(None);
            assert_eq!(whole.len(), 1 << 20);
            assert!(whole.chunks.concat().iter().enumerate().all(|(at, byte)| *byte == at as u8));
            drop(whole);
            assert_eq!(share.used(), 0);
        }
    }

    #[test]
    fn a_small_body_takes_its_size() {
        let share = share(1 << 20);
        let mut buffer = BodyBuffer::new(&share, Some(100));
        assert!(buffer.push(&[1; 40]).is_empty() && buffer.push(&[2; 60]).is_empty());
        assert_eq!(share.used(), 100 + BLOCK_OVERHEAD);
        assert_eq!(buffer.finish(None).chunks.len(), 1);
    }

    #[test]
    fn what_there_is_no_memory_for_is_handed_back() {
        // A single share may take two thirds of the pool.
        let share = share(3 * (BLOCK + BLOCK_OVERHEAD));
        let mut buffer = BodyBuffer::new(&share, Some(1 << 20));
        let data: Vec<u8> = (0..3 * BLOCK).map(|byte| byte as u8).collect();
        let rest = buffer.push(&data);
        assert_eq!(rest, &data[2 * BLOCK..]);
        let (blocks, reservation) = buffer.into_parts();
        assert_eq!(blocks.concat(), &data[..2 * BLOCK]);
        drop(reservation);
        assert_eq!(share.used(), 0);
    }

    #[tokio::test]
    async fn a_whole_body_is_sent_as_often_as_wanted() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let chunks = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let whole =
            Arc::new(BufferedBody { chunks, trailers: Some(trailers.clone()), reservation: None });
        for _ in 0..2 {
            let body = ReplayBody::new(Arc::clone(&whole));
            assert_eq!(body.size_hint().exact(), Some(3));
            let collected = body.collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&trailers));
            assert_eq!(collected.to_bytes(), "abc");
        }
    }
}
