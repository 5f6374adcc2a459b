//! Serves one connection until its end.

use std::error::Error;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::entry::{CloseOrder, ConnectionEntry, IDLE_GRACE};
use crate::settings::ShutdownMode;
use crate::table::ConnectionGuard;
use crate::tracking::{CountedBody, InFlightRequest, WatchedStream};

/// How long a new connection may take to send its first request before a shutdown closes it.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseMode {
    /// At once.
    Immediate,
    /// After the current requests, without time for further ones.
    Graceful,
    /// After the current requests.
    Drain,
}

/// Serves one connection until its end. `make` creates its service when the first byte has arrived.
pub(crate) async fn serve_connection<M, S, B>(
    place: ConnectionGuard,
    stream: TcpStream,
    builder: Arc<auto::Builder<TokioExecutor>>,
    make: Arc<M>,
    stop: CancellationToken,
) where
    M: Fn(IpAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let begun = tokio::select! {
        biased;
        begun = wait_for_first_byte(&place, &stream) => begun,
        _ = wait_for_close(&place, &stop) => false,
    };
    if !begun {
        return;
    }
    // Small answers must not wait for the acknowledgement of earlier ones.
    drop(stream.set_nodelay(true));
    let (table, entry, service) =
        (Arc::clone(&place.table), Arc::clone(&place.entry), make(place.entry.peer));
    let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(&entry)));
    let service = service_fn(move |request| {
        let in_flight = InFlightRequest::begin(&table, &entry);
        let answer = service.call(request);
        async move {
            answer.await.map(|response| response.map(|body| CountedBody::new(body, in_flight)))
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let farewell = tokio::select! {
        biased;
        // First, so that a request that has already arrived is served and not dropped unread.
        ended = connection.as_mut() => return log_connection_error(ended),
        farewell = wait_for_close(&place, &stop) => farewell,
    };
    if farewell == CloseMode::Immediate {
        return;
    }
    // HTTP/1.1: ends after the current answer, which announces it. HTTP/2: GOAWAY, streams finish.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => log_connection_error(ended),
        () = wait_for_drain_timeout(&place, farewell) => {}
    }
}

fn log_connection_error(ended: Result<(), Box<dyn Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection");
    }
}

/// Waits for a slot and the first byte; returns whether a byte arrived.
async fn wait_for_first_byte(place: &ConnectionGuard, stream: &TcpStream) -> bool {
    while !place.entry.is_admitted() {
        // Other connections become evictable by the passage of time alone, without an event.
        if timeout(IDLE_GRACE, place.entry.admission.notified()).await.is_err() {
            place.table.admit_waiting();
        }
    }
    // A socket that cannot be polled is broken.
    stream.readable().await.is_ok()
}

/// Completes when the connection has to end: it has lost its slot, it is overdue, or the port
/// stops.
async fn wait_for_close(place: &ConnectionGuard, stop: &CancellationToken) -> CloseMode {
    let drain = async {
        stop.cancelled().await;
        if place.table.settings.shutdown_mode == ShutdownMode::Abort {
            return CloseMode::Immediate;
        }
        // A new connection first gets time for its request, because hyper would close it unread.
        if !place.entry.has_sent_request() {
            drop(timeout(FIRST_REQUEST_TIMEOUT, place.entry.first_request.notified()).await);
        }
        CloseMode::Drain
    };
    tokio::select! {
        biased;
        order = wait_for_order(&place.entry) => match order {
            CloseOrder::Immediate => CloseMode::Immediate,
            CloseOrder::IfIdle if place.entry.is_idle() => CloseMode::Immediate,
            _ => CloseMode::Graceful,
        },
        () = wait_until_overdue(place) => CloseMode::Graceful,
        farewell = drain => farewell,
    }
}

async fn wait_for_order(entry: &ConnectionEntry) -> CloseOrder {
    loop {
        match entry.order() {
            CloseOrder::KeepOpen => entry.orders.notified().await,
            order => return order,
        }
    }
}

/// Completes when the connection has been inactive for too long. Requests set no timers; this
/// checks again at the earliest time at which the limit could be reached.
async fn wait_until_overdue(place: &ConnectionGuard) {
    let settings = &place.table.settings;
    loop {
        let now = Instant::now();
        let next = now + settings.idle_timeout;
        match place.entry.deadline(settings) {
            Some(at) if at <= now => return,
            deadline => sleep_until(deadline.map_or(next, |at| at.min(next))).await,
        }
    }
}

/// Completes when the connection does not end as requested and has no request in flight that could
/// be lost.
async fn wait_for_drain_timeout(place: &ConnectionGuard, farewell: CloseMode) {
    if farewell == CloseMode::Drain {
        // It keeps its regular time limits.
        tokio::select! {
            order = wait_for_order(&place.entry) => if order == CloseOrder::Immediate { return },
            () = wait_until_overdue(place) => {}
        }
    }
    loop {
        sleep(IDLE_GRACE).await;
        let now = Instant::now();
        let overdue = place.entry.deadline(&place.table.settings).is_some_and(|at| at <= now);
        if overdue || place.entry.is_long_idle(now) || place.entry.order() == CloseOrder::Immediate
        {
            return;
        }
    }
}
