use std::convert::Infallible;
use std::future::pending;

use http::{Request, Response};
use jiff::Timestamp;
use kube::client::Body;
use prometheus_client::metrics::gauge::Gauge;
use slipway_cluster_views::ReconcileTrigger;
use slipway_core::stalled_status;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_judge::evidence::EvidenceRequest;
use slipway_objects::gateway_settings::GatewaySettings;
use slipway_objects::{ManagedKind, ObjectTarget};
use slipway_testkit::plan_settings;
use tokio::sync::mpsc;

use super::*;

/// A context whose API server does not answer.
fn context() -> ReconcileContext {
    let (triggers, _) = mpsc::unbounded_channel();
    let (views, stop) = (Arc::new(ClusterViews::default()), CancellationToken::new());
    let silent =
        tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    let client = Client::new(silent, "ns");
    let streams = GatewayStreams::new(
        triggers.clone(),
        Gauge::default(),
        Arc::clone(&views) as Arc<dyn slipway_gateway_streams::GatewayLookup>,
        stop.clone(),
        1,
        None,
    );
    ReconcileContext {
        events: EventPublisher::new(client.clone(), String::new()),
        client,
        views,
        gateway_streams: Arc::new(streams),
        poller: Arc::new(EvidencePoller::new(None, triggers, Arc::default(), stop.clone())),
        metrics: Arc::default(),
        settings: Arc::new(NamespaceSettings::new(plan_settings(), GatewaySettings::default())),
        memories: ObjectMemories::default(),
        disturbances: DisturbanceLog::default(),
        own_writes: Arc::default(),
        namespace_locks: NamespaceLocks::default(),
        keys: NamespaceKeys::default(),
        leases: Arc::new(NamespaceLeases::new("ns/operator".to_owned())),
        running: Arc::default(),
        stop,
    }
}

/// Leaves something of a ModelDeployment in each memory.
fn remember(ctx: &ReconcileContext, uid: &str, name: &str) {
    let (owner, now) = (ObjectOwner::model("ns", name), Timestamp::now());
    ctx.gateway_streams.set_draining(uid, ["aaaa".to_owned()].into());
    let request =
        EvidenceRequest { generation: 1, since: now, interval_seconds: 60, gates: Vec::new() };
    ctx.poller.set_request(uid, &ReconcileTrigger::new(name).within("ns"), Some(&request));
    let status = stalled_status(ModelDeploymentStatus::default(), "Any", "any", Some(1), now);
    ctx.metrics.conditions.show(uid, "ns", name, &status);
    ctx.memories.record_failure(uid);
    ctx.disturbances.record_removed(&owner, ObjectTarget::new(ManagedKind::Service, name));
    ctx.disturbances.record_deletion(&owner, ObjectTarget::new(ManagedKind::ReplicaSet, name));
    ctx.own_writes.record_sent(uid, 1);
}

#[tokio::test]
async fn nothing_is_left_of_an_object_that_is_forgotten() {
    let ctx = context();
    remember(&ctx, "u", "m");
    remember(&ctx, "u-other", "other");
    let remembers = |uid: &str, name: &str| {
        let owner = ObjectOwner::model("ns", name);
        ctx.model_memories().map(|memory| memory.remembers(uid, &owner))
    };
    assert_eq!((remembers("u", "m"), remembers("u-other", "other")), ([true; 6], [true; 6]));
    ctx.forget("u", &ObjectOwner::model("ns", "m"));
    assert_eq!((remembers("u", "m"), remembers("u-other", "other")), ([false; 6], [true; 6]));
}
