//! Starts the parts of the operator (admin server, lease, controller, streams, poller) and stops
//! them in order.

use std::sync::Arc;

use kube::Client;
use slipway_cluster_views::{ClusterViews, OwnWrites};
use slipway_evidence::{EvidencePoller, PrometheusConnection};
use slipway_gateway_streams::{GatewayLookup, GatewayStreams};
use slipway_listener::OperatorKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply::events::EventPublisher;
use crate::apply::locks::NamespaceLocks;
use crate::gateways::updates::{GatewayUpdateContext, watch_updates};
use crate::metrics::OperatorMetrics;
use crate::namespaces::keys::NamespaceKeys;
use crate::namespaces::lease_watch::watch_leases;
use crate::namespaces::leases::NamespaceLeases;
use crate::namespaces::settings::{NamespaceSettings, watch_settings};
use crate::process::admin::{self, OperatorHealth, ProcessPhase};
use crate::process::args::RunArgs;
use crate::process::error::OperatorError;
use crate::process::lease::{self, LeaseIdentity};
use crate::process::{client, operator_key};
use crate::reconcile::context::{ReconcileContext, RunningReconciles};
use crate::reconcile::controller::run_controller;
use crate::reconcile::memory::{DisturbanceLog, ObjectMemories};
use crate::watch::context::WatchContext;

/// Runs the operator in the cluster of the environment's configuration, until `stop`.
///
/// # Errors
/// When it cannot start, or when it must end because it lost the lease.
pub async fn run_operator(args: RunArgs, stop: CancellationToken) -> Result<(), OperatorError> {
    run_in_cluster(client::infer_config().await?, args, stop).await
}

/// Runs the operator in a given cluster, until `stop`.
///
/// # Errors
/// As for [`run_operator`].
pub async fn run_in_cluster(
    config: kube::Config,
    args: RunArgs,
    stop: CancellationToken,
) -> Result<(), OperatorError> {
    // Reports an invalid address, template or peer at the start, not only when this process leads.
    drop(PrometheusConnection::open(&args.prometheus)?);
    drop(args.settings()?);
    let metrics = Arc::new(OperatorMetrics::default());
    let mut of_lease = config.clone();
    of_lease.connect_timeout = Some(lease::READ_TIMEOUT);
    of_lease.read_timeout = Some(lease::READ_TIMEOUT);
    of_lease.reset_reader_on_write = true;
    let clients = (
        client::build_client(config, Arc::clone(&metrics))?,
        client::build_client(of_lease, Arc::clone(&metrics))?,
    );
    let health = OperatorHealth::new(
        Arc::new(ClusterViews::default()),
        Arc::new(RunningReconciles::default()),
        Arc::clone(&metrics),
    );

    let listen = |e| OperatorError::Listen(args.admin_listen, e);
    let listener = slipway_listener::bind_address(args.admin_listen).map_err(listen)?;
    // The probes answer until the end of the process.
    let ended = CancellationToken::new();
    let server = tokio::spawn(admin::serve_admin(listener, health.clone(), ended.clone()));
    let result = run_with_lease(&args, clients, &health, &stop).await;
    health.set_phase(ProcessPhase::Ending);
    ended.cancel();
    let _ = server.await;
    result
}

/// Waits for the lease if leader election is on, and runs the controllers while the lease is held.
async fn run_with_lease(
    args: &RunArgs,
    (main, of_lease): (Client, Client),
    health: &OperatorHealth,
    stop: &CancellationToken,
) -> Result<(), OperatorError> {
    if !args.leader_elect {
        return run_controllers(args, main, health, stop.child_token()).await;
    }
    let candidacy = lease_identity(args);
    let Some(held) = lease::acquire_lease(&of_lease, &candidacy, stop).await else {
        return Ok(());
    };
    tracing::info!(lease = candidacy.name, identity = candidacy.identity, "leading");
    // The controller stops first; the lease is released only afterwards.
    let (acting, kept) = (stop.child_token(), CancellationToken::new());
    let keep = async {
        let result = held.renew_until(&kept).await;
        acting.cancel();
        result
    };
    let act = async {
        let result = run_controllers(args, main, health, acting.clone()).await;
        kept.cancel();
        result
    };
    tokio::pin!(keep, act);
    tokio::select! {
        // The lease is lost: the running work must not continue beside another leader, so nothing
        // is awaited.
        lost = &mut keep => lost,
        result = &mut act => {
            // `kept` is cancelled: this releases the lease.
            keep.await?;
            result
        }
    }
}

fn env_value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The namespace of the leader lease and of the operator's key.
fn own_namespace(args: &RunArgs) -> String {
    args.lease_namespace
        .clone()
        .or_else(|| env_value("POD_NAMESPACE"))
        .unwrap_or_else(|| "default".into())
}

/// Loads the operator's key, if one is configured. The leader reads it, so that gateways are
/// created with the key that it signs with.
async fn load_operator_key(
    args: &RunArgs,
    client: &Client,
) -> Result<Option<OperatorKey>, OperatorError> {
    match args.key_secret.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => operator_key::load_key(client, &own_namespace(args), name).await.map(Some),
        None => Ok(None),
    }
}

/// The name that all processes of this operator share in namespace Leases.
fn operator_name(args: &RunArgs) -> String {
    format!("{}/{}", own_namespace(args), args.lease_name)
}

fn lease_identity(args: &RunArgs) -> LeaseIdentity {
    let namespace = own_namespace(args);
    let pod = env_value("POD_NAME").unwrap_or_else(|| "slipway-operator".into());
    // A restarted container keeps its pod's name, and must not regard its predecessor's lease as
    // its own.
    let identity = format!("{pod}-{:08x}", rand::random::<u32>());
    LeaseIdentity { namespace, name: args.lease_name.clone(), identity }
}

/// Runs controller, streams and poller until `stop`.
async fn run_controllers(
    args: &RunArgs,
    client: Client,
    health: &OperatorHealth,
    stop: CancellationToken,
) -> Result<(), OperatorError> {
    let (push, pushed) = mpsc::unbounded_channel();
    let watch = WatchContext {
        client,
        namespace: args.namespace.clone(),
        views: Arc::clone(&health.views),
        metrics: Arc::clone(&health.metrics),
        triggers: push,
        stop,
    };
    let ctx = Arc::new(build_context(args, health, &watch).await?);
    health.set_phase(ProcessPhase::Leading);
    let settings = tokio::spawn(watch_settings(watch.clone(), Arc::clone(&ctx.settings)));
    let leases = tokio::spawn(watch_leases(watch.clone(), Arc::clone(&ctx.leases)));
    let of_updates = GatewayUpdateContext {
        watch: watch.clone(),
        settings: Arc::clone(&ctx.settings),
        leases: Arc::clone(&ctx.leases),
        streams: Arc::clone(&ctx.gateway_streams),
    };
    let updates = tokio::spawn(watch_updates(of_updates, args.gateway_update.into()));
    run_controller(&watch, Arc::clone(&ctx), pushed).await;
    health.set_phase(ProcessPhase::Ending);
    // These tasks end with `stop`; when the controller ends by itself, they have nothing left to
    // supervise.
    updates.abort();
    leases.abort();
    settings.abort();
    ctx.gateway_streams.close().await;
    ctx.poller.close().await;
    if watch.stop.is_cancelled() { Ok(()) } else { Err(OperatorError::ControllerEnded) }
}

/// Creates the context that all reconciles share.
async fn build_context(
    args: &RunArgs,
    health: &OperatorHealth,
    watch: &WatchContext,
) -> Result<ReconcileContext, OperatorError> {
    let WatchContext { client, views, metrics, triggers, stop, .. } = watch;
    let key = load_operator_key(args, client).await?;
    let (mut settings, of_gateways) = args.settings()?;
    settings.operator_public_key = key.as_ref().map(OperatorKey::public_key);
    let streams = GatewayStreams::new(
        triggers.clone(),
        metrics.gateway_streams.clone(),
        Arc::clone(views) as Arc<dyn GatewayLookup>,
        stop.child_token(),
        args.gateway_admin_port,
        key,
    );
    let poller = EvidencePoller::new(
        PrometheusConnection::open(&args.prometheus)?,
        triggers.clone(),
        Arc::clone(&metrics.queries),
        stop.child_token(),
    );
    let instance = std::env::var("POD_NAME").unwrap_or_else(|_| "slipway-operator".into());
    Ok(ReconcileContext {
        events: EventPublisher::new(client.clone(), instance),
        views: Arc::clone(views),
        gateway_streams: Arc::new(streams),
        poller: Arc::new(poller),
        metrics: Arc::clone(metrics),
        settings: Arc::new(NamespaceSettings::new(settings, of_gateways)),
        memories: ObjectMemories::default(),
        disturbances: DisturbanceLog::default(),
        own_writes: Arc::new(OwnWrites::default()),
        namespace_locks: NamespaceLocks::default(),
        keys: NamespaceKeys::default(),
        leases: Arc::new(NamespaceLeases::new(operator_name(args))),
        running: Arc::clone(&health.running),
        stop: stop.clone(),
        client: client.clone(),
    })
}
