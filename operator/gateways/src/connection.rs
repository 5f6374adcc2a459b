//! One stream to one gateway pod: reconnects after each failure, reads line by line.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use slipway_chassis::backoff::{Backoff, Jitter};
use slipway_cluster_views::ReconcileTrigger;
use slipway_contracts::state::{CHANGES_QUERY, MAX_LINE_BYTES, PATH, StateLine};
use slipway_core::gateway_rollout::ClientRequests;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Decoder as _, LinesCodec, LinesCodecError};

use crate::report::{StreamRateLimiter, is_relevant_change, to_gateway_report};
use crate::state::{GatewayEndpoint, PodReports, StreamState};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A gateway pod sends a line at least every second.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
    jitter: Jitter::PlusMinus(0.2),
};

/// How many more ModelDeployments a pod may report than exist at the moment, because some may just
/// have been created or deleted.
const MODEL_COUNT_SLACK: usize = 100;

/// Maintains a stream to a pod; never returns.
pub(crate) async fn maintain_stream(shared: &StreamState, pod: &GatewayEndpoint) {
    let mut failures = 0_u32;
    loop {
        let mut spoke = false;
        let error = run_stream(shared, pod, &mut spoke).await;
        shared.mark_unreachable(pod, &error.to_string());
        clear_reports(shared, pod);
        failures = if spoke { 1 } else { failures.saturating_add(1) };
        tracing::debug!(pod = pod.name, namespace = pod.namespace, %error, "stream to a gateway ended");
        tokio::time::sleep(RETRY_BACKOFF.random_delay(failures)).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no answer in time")]
    Timeout,
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("transport: {0}")]
    Http(#[from] hyper::Error),
    #[error("request: {0}")]
    Request(#[from] http::Error),
    #[error("answer {0}")]
    Answer(http::StatusCode),
    #[error("it does not know this operator (401): {0}")]
    Unauthorized(String),
    #[error("not a state line: {0}")]
    Line(#[from] serde_json::Error),
    #[error("not a state line: {0}")]
    Text(std::io::Error),
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("the address answers for pod {0}")]
    OtherPod(String),
    #[error("the gateway closed the stream")]
    Closed,
    #[error("it tells of more than {0} ModelDeployments, and the namespace has fewer")]
    TooMany(usize),
    #[error("no ReplicaSet of the Deployment slipway-gateway made this pod")]
    NoGateway,
}

impl From<LinesCodecError> for StreamError {
    fn from(error: LinesCodecError) -> Self {
        match error {
            LinesCodecError::MaxLineLengthExceeded => Self::TooLong,
            LinesCodecError::Io(error) => Self::Text(error),
        }
    }
}

/// Counts a stream as long as it lives, however it ends.
struct StreamGauge<'a>(&'a Gauge);

impl<'a> StreamGauge<'a> {
    fn new(open_streams: &'a Gauge) -> Self {
        open_streams.inc();
        Self(open_streams)
    }
}

impl Drop for StreamGauge<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn run_stream(shared: &StreamState, pod: &GatewayEndpoint, spoke: &mut bool) -> StreamError {
    match read_stream(shared, pod, spoke).await {
        Ok(()) => StreamError::Closed,
        Err(error) => error,
    }
}

async fn read_stream(
    shared: &StreamState,
    pod: &GatewayEndpoint,
    spoke: &mut bool,
) -> Result<(), StreamError> {
    if !shared.gateways.is_gateway(&pod.namespace, &pod.name, &pod.uid) {
        return Err(StreamError::NoGateway);
    }
    let late = |_| StreamError::Timeout;
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect((pod.ip, shared.port)))
        .await
        .map_err(late)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // The connection must be polled for the body to arrive; it ends with the sender and the body.
    let conversation = async {
        let mut request = http::Request::get(format!("{PATH}?{CHANGES_QUERY}"))
            .header(http::header::HOST, "gateway")
            .header(http::header::USER_AGENT, "slipway-operator");
        if let Some(key) = &shared.key {
            let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
            request = request.header(
                http::header::AUTHORIZATION,
                key.authorization(&pod.namespace, &pod.name, now),
            );
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = timeout(READ_TIMEOUT, sender.send_request(request)).await.map_err(late)??;
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            return Err(StreamError::Unauthorized(refusal_text(answer.into_body()).await));
        }
        if !answer.status().is_success() {
            return Err(StreamError::Answer(answer.status()));
        }
        let standing = StreamGauge::new(&shared.open_streams);
        let (mut body, mut pace) = (answer.into_body(), StreamRateLimiter::default());
        let mut lines = LinesCodec::new_with_max_length(MAX_LINE_BYTES);
        let mut unread = BytesMut::new();
        while let Some(frame) = timeout(READ_TIMEOUT, body.frame()).await.map_err(late)? {
            let Ok(data) = frame?.into_data() else { continue };
            pace.consume(data.len()).await;
            // Frame by frame, not by `FramedRead`: the time limit is for any bytes, not for a line,
            // and what waits for the pace does not count against it.
            unread.extend_from_slice(&data);
            while let Some(line) = lines.decode(&mut unread)? {
                if !line.is_empty() {
                    let more = handle_line(shared, pod, serde_json::from_str(&line)?)?;
                    // After what it says is known: it is never neither.
                    if !more && !std::mem::replace(spoke, true) {
                        shared.mark_reachable(pod);
                    }
                }
            }
        }
        drop(standing);
        Ok(())
    };
    tokio::select! {
        result = conversation => result,
        Err(error) = connection => Err(error.into()),
    }
}

/// The text of a gateway's rejection, for example about differing clocks or another operator's key.
/// It is shown to users, so it is limited to one line and a maximum length.
async fn refusal_text(body: hyper::body::Incoming) -> String {
    let read = timeout(READ_TIMEOUT, Limited::new(body, 1024).collect()).await;
    let bytes =
        read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim().chars().filter(|it| !it.is_control()).take(250).collect()
}

/// Stores a line and triggers the ModelDeployments whose report changed. Returns whether the report
/// continues in the next line.
fn handle_line(
    shared: &StreamState,
    pod: &GatewayEndpoint,
    line: StateLine,
) -> Result<bool, StreamError> {
    // Addresses are soon reused for new pods.
    if line.pod != pod.name {
        return Err(StreamError::OtherPod(line.pod));
    }
    if let Some(clients) = line.clients {
        let requests = ClientRequests { ended: clients.ended, failed: clients.failed };
        let counts = (pod.namespace.clone(), requests);
        shared.clients.write().insert(pod.uid.clone(), counts);
    }
    let mut news = Vec::new();
    {
        let draining = shared.draining.read();
        let none = BTreeSet::new();
        let mut all = shared.reports.write();
        // Missing: the pod was deleted while the line was in transit.
        let Some(known) = all.get_mut(&pod.uid) else {
            return Ok(false);
        };
        let gone: Vec<_> = line.gone.iter().flatten().filter_map(|uid| known.remove(uid)).collect();
        news.extend(gone.into_iter().map(|(name, _)| name));
        let mut fresh = PodReports::with_capacity(line.models.len());
        for model in line.models {
            let (uid, name) = (model.uid.clone(), model.name.clone());
            let report = to_gateway_report(model);
            let before = known.remove(&uid).map(|(_, before)| before);
            if is_relevant_change(before.as_ref(), &report, draining.get(&uid).unwrap_or(&none)) {
                news.push(name.clone());
            }
            fresh.insert(uid, (name, report));
        }
        if !line.changes {
            news.extend(known.drain().map(|(_, (name, _))| name));
        }
        known.extend(fresh);
        let most = 2 * shared.gateways.count_models(&pod.namespace) + MODEL_COUNT_SLACK;
        if known.len() > most {
            return Err(StreamError::TooMany(most));
        }
    }
    trigger_models(shared, pod, news);
    Ok(line.more.unwrap_or_default())
}

/// Removes the reports of a pod whose stream is lost: its current state is unknown.
fn clear_reports(shared: &StreamState, pod: &GatewayEndpoint) {
    let lost = shared.reports.write().get_mut(&pod.uid).map(std::mem::take);
    trigger_models(shared, pod, lost.into_iter().flatten().map(|(_, (name, _))| name).collect());
}

fn trigger_models(shared: &StreamState, pod: &GatewayEndpoint, names: Vec<String>) {
    for name in names {
        // The receiver is dropped only at shutdown.
        let _ = shared.triggers.send(ReconcileTrigger::new(&name).within(&pod.namespace));
    }
}
