//! Reports a connection's requests and writes to the table.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::entry::ConnectionEntry;
use crate::table::ConnectionTable;

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightRequest {
    table: Arc<ConnectionTable>,
    entry: Arc<ConnectionEntry>,
}

impl InFlightRequest {
    pub(crate) fn begin(table: &Arc<ConnectionTable>, entry: &Arc<ConnectionEntry>) -> Self {
        table.begin_request(entry);
        Self { table: Arc::clone(table), entry: Arc::clone(entry) }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.table.finish_request(&self.entry);
    }
}

/// The body of an answer: the request is in flight until the body has been written.
#[derive(Debug)]
pub struct CountedBody<B> {
    body: B,
    _in_flight: InFlightRequest,
}

impl<B> CountedBody<B> {
    pub(crate) fn new(body: B, in_flight: InFlightRequest) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl<B: Body + Unpin> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that records whether a write is waiting for its client: an answer whose body is
/// complete may still be in transit.
#[derive(Debug)]
pub(crate) struct WatchedStream {
    stream: TcpStream,
    entry: Arc<ConnectionEntry>,
}

impl WatchedStream {
    pub(crate) fn new(stream: TcpStream, entry: Arc<ConnectionEntry>) -> Self {
        Self { stream, entry }
    }

    fn record_blocked(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.entry.set_blocked(written.is_pending());
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.record_blocked(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.record_blocked(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
