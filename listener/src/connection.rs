//! The life of one connection.

use std::{error::Error, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    counted::{CountedBody, InFlight, Watched},
    settings::End,
    table::{Entry, GRACE, Order, Place},
};

/// How long a connection that was accepted last may take to send its first request before it is closed by a shutdown.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// At once.
    Cut,
    /// After what it is at; it has no time to begin anything more.
    Leave,
    /// After what it is at.
    Drain,
}

/// Serves one connection to its end. `make` makes its service when its first byte has arrived.
pub(crate) async fn run<M, S, B>(
    place: Place,
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
        begun = first_byte(&place, &stream) => begun,
        _ = farewell(&place, &stop) => false,
    };
    if !begun {
        return;
    }
    // Small answers must not wait for the acknowledgement of earlier ones.
    drop(stream.set_nodelay(true));
    let (table, entry, service) = (Arc::clone(&place.table), Arc::clone(&place.entry), make(place.entry.peer));
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&entry)));
    let service = service_fn(move |request| {
        let in_flight = InFlight::begin(&table, &entry);
        let answer = service.call(request);
        async move { answer.await.map(|response| response.map(|body| CountedBody::new(body, in_flight))) }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let farewell = tokio::select! {
        biased;
        // First, so that a request that is there already is begun, and not closed unread.
        ended = connection.as_mut() => return note(ended),
        farewell = farewell(&place, &stop) => farewell,
    };
    if farewell == Farewell::Cut {
        return;
    }
    // HTTP/1.1: ends after the current answer, which says so. HTTP/2: GOAWAY, streams finish.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => note(ended),
        () = out_of_patience(&place, farewell) => {}
    }
}

fn note(ended: Result<(), Box<dyn Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection");
    }
}

/// Waits for a place and the first byte; whether there is one.
async fn first_byte(place: &Place, stream: &TcpStream) -> bool {
    while !place.entry.is_seated() {
        // Others become old, and may have to go, without anything that happens.
        if timeout(GRACE, place.entry.place.notified()).await.is_err() {
            place.table.seat_waiting();
        }
    }
    // A socket that cannot be waited for is broken.
    stream.readable().await.is_ok()
}

/// Completes when the connection has to end: it has lost its place, it is overdue, or the port stops.
async fn farewell(place: &Place, stop: &CancellationToken) -> Farewell {
    let drain = async {
        stop.cancelled().await;
        if place.table.settings.end == End::Cut {
            return Farewell::Cut;
        }
        // One that has just been accepted is first given time for its request: hyper would close it unread.
        if !place.entry.has_spoken() {
            drop(timeout(FIRST_REQUEST, place.entry.first_request.notified()).await);
        }
        Farewell::Drain
    };
    tokio::select! {
        biased;
        order = ordered(&place.entry) => match order {
            Order::Cut => Farewell::Cut,
            Order::Close if place.entry.is_quiet() => Farewell::Cut,
            _ => Farewell::Leave,
        },
        () = overdue(place) => Farewell::Leave,
        farewell = drain => farewell,
    }
}

async fn ordered(entry: &Entry) -> Order {
    loop {
        match entry.order() {
            Order::Stay => entry.orders.notified().await,
            order => return order,
        }
    }
}

/// Completes when nothing has happened for too long. Requests set no timers: it looks again when it could be.
async fn overdue(place: &Place) {
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

/// Completes when one that was asked to end does not, and has no request in flight that could be lost.
async fn out_of_patience(place: &Place, farewell: Farewell) {
    if farewell == Farewell::Drain {
        // It has all the time that it had before.
        tokio::select! {
            order = ordered(&place.entry) => if order == Order::Cut { return },
            () = overdue(place) => {}
        }
    }
    loop {
        sleep(GRACE).await;
        let now = Instant::now();
        let overdue = place.entry.deadline(&place.table.settings).is_some_and(|at| at <= now);
        if overdue || place.entry.is_old(now) || place.entry.order() == Order::Cut {
            return;
        }
    }
}
