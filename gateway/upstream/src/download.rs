//! The body of an answer, as a pod sends it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::endpoint::InFlightGuard;
use crate::pool::Http1Handle;

/// The body of a pod's answer. At its end the connection returns to the pool; when the body is
/// dropped earlier, the connection is closed.
#[derive(Debug)]
pub struct DownloadBody {
    body: Incoming,
    link: Option<Http1Handle>,
    guard: Option<InFlightGuard>,
}

impl DownloadBody {
    pub(crate) fn new(body: Incoming, link: Option<Http1Handle>, visit: InFlightGuard) -> Self {
        let mut download = Self { body, link, guard: Some(visit) };
        if download.body.is_end_stream() {
            download.return_connection();
        }
        download
    }

    fn return_connection(&mut self) {
        if let (Some(visit), Some(link)) = (self.guard.take(), self.link.take()) {
            visit.endpoint.pool.put_back(link);
        }
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => drop(self.link.take()),
            None => self.return_connection(),
            Some(Ok(_)) if self.body.is_end_stream() => self.return_connection(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
