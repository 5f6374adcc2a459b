//! One stream to every gateway pod that serves, and the newest word of each pod about each
//! ModelDeployment.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use slipway_core::gateway_rollout::ClientRequests;
use slipway_core::observed::{GatewayReport, UnreachableGateway};
use slipway_listener::OperatorKey;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{ObjectOwner, ViewChange};
use crate::gateway_report::{LineDecoder, StateLine, StreamRateLimiter, is_relevant_change};
use crate::metrics::OperatorMetrics;
use crate::model_watch::GuardedModel;
use crate::observe::CachedPod;
use crate::views::ClusterViews;

/// Admin port of a gateway pod.
pub const PORT: u16 = 9091;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A line comes at least every second.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// What the streams need to know of the cluster. A pod is followed only while it is a gateway:
/// whoever writes its labels on a pod of theirs is not called.
pub trait GatewayLookup: Send + Sync {
    /// Whether the pod of this name and UID is a gateway that the operator made.
    fn is_gateway(&self, namespace: &str, name: &str, uid: &str) -> bool;
    /// How many ModelDeployments there are in a namespace.
    fn count_models(&self, namespace: &str) -> usize;
}

impl GatewayLookup for ClusterViews {
    fn is_gateway(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let pod = self.pods.get(&ObjectOwner::gateway(namespace), name);
        pod.is_some_and(|pod| pod.view.uid == uid && Self::is_gateway(self, namespace, &pod.view))
    }

    fn count_models(&self, namespace: &str) -> usize {
        self.models.count_models(namespace)
    }
}

/// A pod tells of so many more ModelDeployments than there are: those that came or went just now.
const MODEL_COUNT_SLACK: usize = 100;
/// A gateway pod.
#[derive(Clone, Debug)]
struct GatewayEndpoint {
    uid: String,
    namespace: String,
    name: String,
    ip: IpAddr,
}

/// What one pod says, by UID of the ModelDeployment: its name, and the report.
type PodReports = HashMap<String, (String, GatewayReport)>;

struct StreamState {
    reports: RwLock<HashMap<String, PodReports>>,
    /// Pods whose stream does not stand.
    unreachable: RwLock<HashMap<String, UnreachableGateway>>,
    /// What clients have asked of each pod, and its namespace.
    clients: RwLock<HashMap<String, (String, ClientRequests)>>,
    /// Revisions that get no traffic, by UID of the ModelDeployment.
    draining: RwLock<HashMap<String, BTreeSet<String>>>,
    triggers: UnboundedSender<ObjectRef<GuardedModel>>,
    metrics: Arc<OperatorMetrics>,
    gateways: Arc<dyn GatewayLookup>,
    port: u16,
    /// Signs what is asked of gateways.
    key: Option<OperatorKey>,
}

impl StreamState {
    /// Notes why the stream to a pod does not stand; since when is known already unless it stood
    /// until now.
    fn mark_unreachable(&self, pod: &GatewayEndpoint, why: &str) {
        let error = format!("{}: {why}", SocketAddr::new(pod.ip, self.port));
        let mut all = self.unreachable.write().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(pod.uid.clone());
        entry
            .and_modify(|known| known.error.clone_from(&error))
            .or_insert_with(|| UnreachableGateway { since: Timestamp::now(), error });
    }

    fn mark_reachable(&self, pod: &GatewayEndpoint) {
        self.unreachable.write().unwrap_or_else(PoisonError::into_inner).remove(&pod.uid);
    }
}

/// The streams.
pub struct GatewayStreams {
    shared: Arc<StreamState>,
    streams: RwLock<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl GatewayStreams {
    /// No streams yet; `triggers` gets the ModelDeployments about which there is news. All ends
    /// with `stop`.
    pub fn new(
        triggers: UnboundedSender<ObjectRef<GuardedModel>>,
        metrics: Arc<OperatorMetrics>,
        gateways: Arc<dyn GatewayLookup>,
        stop: CancellationToken,
        port: u16,
        key: Option<OperatorKey>,
    ) -> Self {
        let (reports, unreachable, draining) =
            (RwLock::default(), RwLock::default(), RwLock::default());
        let clients = RwLock::default();
        let shared = StreamState {
            reports,
            unreachable,
            clients,
            draining,
            triggers,
            metrics,
            gateways,
            port,
            key,
        };
        let shared = Arc::new(shared);
        Self { shared, streams: RwLock::default(), tasks: TaskTracker::new(), stop }
    }

    /// Follows a gateway pod: a stream begins when it is ready and stays until it is gone. One that
    /// leaves still finishes connections, and what it sends where must be known until its end.
    pub fn follow(&self, change: &ViewChange<CachedPod>) {
        let address = |view: &Option<CachedPod>| {
            let view = view.as_ref()?;
            Some((view.uid.clone(), view.ip.as_deref()?.parse::<IpAddr>().ok()?))
        };
        let (before, after) = (address(&change.before), address(&change.after));
        if let Some((uid, _)) = before.filter(|before| Some(before) != after.as_ref()) {
            self.close_stream(&uid);
        }
        let serves = change.after.as_ref().is_some_and(|view| view.ready || view.deleting);
        if let Some((uid, ip)) = after.filter(|(uid, _)| serves && !self.has_stream(uid)) {
            self.open_stream(GatewayEndpoint {
                uid,
                namespace: change.owner.namespace.clone(),
                name: change.name.clone(),
                ip,
            });
        }
    }

    fn has_stream(&self, pod_uid: &str) -> bool {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).contains_key(pod_uid)
    }

    /// The newest word of a pod about a ModelDeployment, while the stream to it stands.
    pub fn report(&self, pod_uid: &str, model_uid: &str) -> Option<GatewayReport> {
        let reports = self.shared.reports.read().unwrap_or_else(PoisonError::into_inner);
        reports.get(pod_uid)?.get(model_uid).map(|(_, report)| report.clone())
    }

    /// What clients have asked of each pod that tells, by its UID, and its namespace.
    pub fn client_requests(&self) -> HashMap<String, (String, ClientRequests)> {
        self.shared.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when and why the stream to a pod does not stand.
    pub fn unreachable(&self, pod_uid: &str) -> Option<UnreachableGateway> {
        self.shared.unreachable.read().unwrap_or_else(PoisonError::into_inner).get(pod_uid).cloned()
    }

    /// Notes which revisions of a ModelDeployment get no traffic: the last request that leaves them
    /// is news.
    pub fn set_draining(&self, model_uid: &str, revisions: BTreeSet<String>) {
        let mut draining = self.shared.draining.write().unwrap_or_else(PoisonError::into_inner);
        if revisions.is_empty() {
            draining.remove(model_uid);
        } else {
            draining.insert(model_uid.to_owned(), revisions);
        }
    }

    /// Ends all streams and waits for their tasks.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn open_stream(&self, pod: GatewayEndpoint) {
        let token = self.stop.child_token();
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = streams.insert(pod.uid.clone(), token.clone()) {
            former.cancel();
        }
        drop(streams);
        self.shared
            .reports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.uid.clone(), PodReports::new());
        self.shared.mark_unreachable(&pod, "there is no connection yet");
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            token.run_until_cancelled(maintain_stream(&shared, &pod)).await;
        });
    }

    fn close_stream(&self, pod_uid: &str) {
        if let Some(token) =
            self.streams.write().unwrap_or_else(PoisonError::into_inner).remove(pod_uid)
        {
            token.cancel();
        }
        // The pod's own change triggers the reconciles; its reports only must not outlive it.
        self.shared.reports.write().unwrap_or_else(PoisonError::into_inner).remove(pod_uid);
        self.shared.unreachable.write().unwrap_or_else(PoisonError::into_inner).remove(pod_uid);
        self.shared.clients.write().unwrap_or_else(PoisonError::into_inner).remove(pod_uid);
    }
}

/// Keeps a stream to a pod, for ever.
async fn maintain_stream(shared: &StreamState, pod: &GatewayEndpoint) {
    let mut wait = INITIAL_RETRY_DELAY;
    loop {
        let mut spoke = false;
        let error = run_stream(shared, pod, &mut spoke).await;
        shared.mark_unreachable(pod, &error.to_string());
        clear_reports(shared, pod);
        if spoke {
            wait = INITIAL_RETRY_DELAY;
        }
        tracing::debug!(pod = pod.name, namespace = pod.namespace, %error, "stream to a gateway ended");
        tokio::time::sleep(wait.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
        wait = (wait * 2).min(MAX_RETRY_DELAY);
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
    #[error(transparent)]
    TooLong(#[from] crate::gateway_report::LineTooLong),
    #[error("the address answers for pod {0}")]
    OtherPod(String),
    #[error("the gateway closed the stream")]
    Closed,
    #[error("it tells of more than {0} ModelDeployments, and the namespace has fewer")]
    TooMany(usize),
    #[error("no ReplicaSet of the Deployment slipway-gateway made this pod")]
    NoGateway,
}

/// Counts a stream as long as it lives, however it ends.
struct StreamGauge<'a>(&'a OperatorMetrics);

impl<'a> StreamGauge<'a> {
    fn new(metrics: &'a OperatorMetrics) -> Self {
        metrics.gateway_streams.inc();
        Self(metrics)
    }
}

impl Drop for StreamGauge<'_> {
    fn drop(&mut self) {
        self.0.gateway_streams.dec();
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
        let mut request = http::Request::get("/v1/state?changes=true")
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
        let standing = StreamGauge::new(&shared.metrics);
        let (mut body, mut lines, mut pace) =
            (answer.into_body(), LineDecoder::default(), StreamRateLimiter::default());
        while let Some(frame) = timeout(READ_TIMEOUT, body.frame()).await.map_err(late)? {
            let Ok(data) = frame?.into_data() else { continue };
            pace.consume(data.len()).await;
            for line in lines.push(&data)? {
                if !line.is_empty() {
                    let more = handle_line(shared, pod, serde_json::from_slice(&line)?)?;
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

/// Why a gateway refuses, in its words, which name clocks or another operator's key: for people, so
/// bounded and on one line.
async fn refusal_text(body: hyper::body::Incoming) -> String {
    let read = timeout(READ_TIMEOUT, Limited::new(body, 1024).collect()).await;
    let bytes =
        read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim().chars().filter(|it| !it.is_control()).take(250).collect()
}

/// Keeps a line and reports the ModelDeployments about which it has news. Gives whether it goes on
/// in the next line.
fn handle_line(
    shared: &StreamState,
    pod: &GatewayEndpoint,
    line: StateLine,
) -> Result<bool, StreamError> {
    // Addresses are given to new pods soon after the old ones are gone.
    if line.pod != pod.name {
        return Err(StreamError::OtherPod(line.pod));
    }
    if let Some(clients) = line.clients {
        let requests = ClientRequests { ended: clients.ended, failed: clients.failed };
        let told = (pod.namespace.clone(), requests);
        shared
            .clients
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.uid.clone(), told);
    }
    let mut news = Vec::new();
    {
        let draining = shared.draining.read().unwrap_or_else(PoisonError::into_inner);
        let none = BTreeSet::new();
        let mut all = shared.reports.write().unwrap_or_else(PoisonError::into_inner);
        // Missing: the pod left while the line was on its way.
        let Some(known) = all.get_mut(&pod.uid) else {
            return Ok(false);
        };
        let gone: Vec<_> = line.gone.iter().filter_map(|uid| known.remove(uid)).collect();
        news.extend(gone.into_iter().map(|(name, _)| name));
        let mut fresh = PodReports::with_capacity(line.models.len());
        for model in line.models {
            let (uid, name) = (model.uid.clone(), model.name.clone());
            let report = model.into_report();
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
    Ok(line.more)
}

/// The stream is lost: what the pod said is no longer known.
fn clear_reports(shared: &StreamState, pod: &GatewayEndpoint) {
    let lost = shared
        .reports
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .get_mut(&pod.uid)
        .map(std::mem::take);
    trigger_models(shared, pod, lost.into_iter().flatten().map(|(_, (name, _))| name).collect());
}

fn trigger_models(shared: &StreamState, pod: &GatewayEndpoint, names: Vec<String>) {
    for name in names {
        // The receiver is gone only when the operator ends.
        let _ = shared.triggers.send(ObjectRef::new(&name).within(&pod.namespace));
    }
}

#[cfg(test)]
#[path = "gateway_link_tests.rs"]
mod tests;
