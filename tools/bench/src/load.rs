//! The load: connections that send one request after the other (closed loop), or at a fixed rate
//! independent of the answers (open loop).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use slipway_contracts::grpc::STATUS_HEADER;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::variation::BodyVariation;
use crate::{BenchOptions, process};

/// Significant decimal digits of latencies.
const LATENCY_DIGITS: u8 = 3;

/// One request, ready to be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct BenchRequest {
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether it is gRPC: HTTP/2 and a status in the trailers.
    pub(crate) grpc: bool,
    /// Different inputs for each request; if absent, all requests are equal.
    pub(crate) variation: Option<Arc<BodyVariation>>,
}

impl BenchRequest {
    fn next_body(&self) -> Bytes {
        self.variation.as_ref().map_or_else(|| self.body.clone(), |vary| vary.next_body(&self.body))
    }
}

#[derive(Debug)]
pub(crate) struct BenchResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// `grpc-status`, if present.
    pub(crate) grpc_status: Option<i32>,
}

impl BenchResponse {
    fn is_success(&self, grpc: bool) -> bool {
        self.status.is_success() && (!grpc || self.grpc_status == Some(0))
    }
}

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct LoadMeasurement {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    /// Latencies in microseconds.
    latencies: Histogram<u64>,
}

impl LoadMeasurement {
    fn new() -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_max(u32::MAX.into(), LATENCY_DIGITS)?;
        Ok(Self { requests: 0, errors: 0, seconds: 0.0, latencies })
    }

    /// A percentile in microseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        if self.latencies.is_empty() {
            return f64::NAN;
        }
        self.latencies.value_at_quantile(share) as f64
    }
}

enum BenchConnection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl BenchConnection {
    async fn open(call: &BenchRequest) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", call.port)).await?;
        stream.set_nodelay(true)?;
        if call.grpc {
            let (sender, driver) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::task::spawn_local(driver);
            return Ok(Self::Http2(sender));
        }
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(driver);
        Ok(Self::Http1(sender))
    }

    async fn send(&mut self, call: &BenchRequest, body: Bytes) -> anyhow::Result<BenchResponse> {
        let scheme = format!("http://127.0.0.1:{}{}", call.port, call.path);
        let uri = if call.grpc { scheme.as_str() } else { call.path.as_str() };
        let mut request = Request::post(uri).body(Full::new(body))?;
        request.headers_mut().extend(call.headers.clone());
        let (head, body) = match self {
            Self::Http1(sender) => {
                request
                    .headers_mut()
                    .insert(http::header::HOST, http::HeaderValue::from_static("127.0.0.1"));
                sender.ready().await?;
                sender.send_request(request).await?.into_parts()
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?.into_parts()
            }
        };
        let whole = body.collect().await?;
        let status = |headers: &HeaderMap| headers.get(STATUS_HEADER)?.to_str().ok()?.parse().ok();
        let grpc_status = whole.trailers().and_then(status).or_else(|| status(&head.headers));
        Ok(BenchResponse {
            status: head.status,
            headers: head.headers,
            body: whole.to_bytes(),
            grpc_status,
        })
    }
}

/// Sends `call` once, unchanged.
pub(crate) fn send_once(call: &BenchRequest) -> anyhow::Result<BenchResponse> {
    with_timeout(async {
        let mut connection = BenchConnection::open(call).await?;
        connection.send(call, call.body.clone()).await
    })
}

/// Whether `call` is answered successfully.
pub(crate) fn is_answered(call: &BenchRequest) -> bool {
    send_once(call).is_ok_and(|answer| answer.status.is_success())
}

/// Sends a GET for `path`.
pub(crate) fn http_get(port: u16, path: &str) -> anyhow::Result<BenchResponse> {
    let request =
        Request::get(path).header(http::header::HOST, "127.0.0.1").body(Full::new(Bytes::new()))?;
    with_timeout(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(driver);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(BenchResponse { status: head.status, headers: head.headers, body, grpc_status: None })
    })
}

fn with_timeout(
    exchange: impl Future<Output = anyhow::Result<BenchResponse>>,
) -> anyhow::Result<BenchResponse> {
    block_on_local(async {
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .context("no answer in 30 s")?
    })
}

/// Runs a closed loop over all connections for `seconds`.
pub(crate) fn run_closed_loop(
    call: &BenchRequest,
    options: &BenchOptions,
    seconds: f64,
) -> anyhow::Result<LoadMeasurement> {
    drive_load(call, options, seconds, None)
}

/// Runs an open loop: `rate` requests per second over all connections; latencies count from the
/// time at which a request was due.
pub(crate) fn run_open_loop(
    call: &BenchRequest,
    options: &BenchOptions,
    seconds: f64,
    rate: f64,
) -> anyhow::Result<LoadMeasurement> {
    drive_load(call, options, seconds, Some(rate))
}

fn drive_load(
    call: &BenchRequest,
    options: &BenchOptions,
    seconds: f64,
    rate: Option<f64>,
) -> anyhow::Result<LoadMeasurement> {
    process::pin_to_core(options.load_core)?;
    let call = Rc::new(call.clone());
    block_on_local(async {
        let begun = Instant::now();
        let until = begun + Duration::from_secs_f64(seconds);
        let mut tasks = Vec::new();
        for number in 0..options.connections {
            let gap =
                rate.map(|rate| Duration::from_secs_f64(f64::from(options.connections) / rate));
            let first = begun
                + gap.map_or(Duration::ZERO, |gap| {
                    gap.mul_f64(f64::from(number) / f64::from(options.connections))
                });
            tasks.push(tokio::task::spawn_local(run_connection(
                Rc::clone(&call),
                first,
                gap,
                until,
            )));
        }
        let mut all = LoadMeasurement::new()?;
        for task in tasks {
            let part = task.await??;
            all.requests += part.requests;
            all.errors += part.errors;
            all.latencies.add(part.latencies)?;
        }
        all.seconds = begun.elapsed().as_secs_f64();
        ensure!(all.requests > 0, "nothing was answered");
        Ok(all)
    })
}

async fn run_connection(
    call: Rc<BenchRequest>,
    first: Instant,
    gap: Option<Duration>,
    until: Instant,
) -> anyhow::Result<LoadMeasurement> {
    let mut connection = BenchConnection::open(&call).await?;
    let mut measured = LoadMeasurement::new()?;
    let mut due = first;
    loop {
        if let Some(gap) = gap {
            // tokio's timers have a resolution of a millisecond, far coarser than the measured
            // times. No other process uses the load's core.
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            if due >= until {
                return Ok(measured);
            }
            measured.send_and_record(&mut connection, &call, due).await?;
            due += gap;
        } else {
            let now = Instant::now();
            if now >= until {
                return Ok(measured);
            }
            measured.send_and_record(&mut connection, &call, now).await?;
        }
    }
}

impl LoadMeasurement {
    async fn send_and_record(
        &mut self,
        connection: &mut BenchConnection,
        call: &BenchRequest,
        due: Instant,
    ) -> anyhow::Result<()> {
        match connection.send(call, call.next_body()).await {
            Ok(answer) if answer.is_success(call.grpc) => {
                self.requests += 1;
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                // Above the bound, which is more than an hour, it counts as the bound.
                self.latencies.saturating_record(micros);
            }
            Ok(_) => self.errors += 1,
            Err(_) => {
                self.errors += 1;
                *connection = BenchConnection::open(call).await?;
            }
        }
        Ok(())
    }
}

fn block_on_local<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut measured = LoadMeasurement::new().unwrap();
        assert!(measured.percentile(0.5).is_nan());
        (0..=100).for_each(|micros| measured.latencies.saturating_record(micros));
        assert_eq!(
            [0.0, 0.5, 0.99, 1.0].map(|share| measured.percentile(share)),
            [0.0, 50.0, 99.0, 100.0]
        );
    }
}
