//! Replacements for what a cluster without nodes lacks: a ReplicaSet controller with its pods,
//! gateways that confirm, and a Prometheus with traffic.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Form, State};
use axum::routing::{get, post};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DeserializeGuard;
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::free_port;
use super::world::World;

/// The running fakes; they stop when this is dropped.
pub struct Fakes {
    _tasks: JoinSet<()>,
    /// Port of the gateways' admin servers.
    pub gateway_port: u16,
    /// Address of Prometheus.
    pub prometheus: String,
}

/// The reports of the gateways as JSON models, derived from the watched statuses.
type Said = watch::Sender<Vec<Value>>;

impl Fakes {
    /// Starts all fakes. `loopback` selects a network of the test's own (127.x), so that parallel
    /// tests do not use the same addresses.
    pub async fn start(world: &World, loopback: u8) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(run_replica_sets(world.api()));
        let said = Said::new(Vec::new());
        let gateway_port = free_port();
        let mut gateways = Vec::new();
        for number in [1, 2] {
            let (name, ip) =
                (format!("slipway-gateway-{number}"), IpAddr::from([127, loopback, 0, number]));
            let listener = TcpListener::bind(SocketAddr::from((ip, gateway_port))).await.unwrap();
            tasks.spawn(serve_gateway(listener, name.clone(), said.clone()));
            gateways.push((name, ip));
        }
        tasks.spawn(run_gateways(world.api(), said));
        tasks.spawn(run_gateway_deployment(world.api(), world.api(), world.api(), gateways));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let prometheus = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn(serve_prometheus(listener));
        Self { _tasks: tasks, gateway_port, prometheus }
    }

    /// Arguments for an operator that uses the fakes.
    pub fn arguments(&self) -> [String; 2] {
        [
            format!("--gateway-admin-port={}", self.gateway_port),
            format!("--prometheus-url={}", self.prometheus),
        ]
    }
}

/// Makes all pods of each ReplicaSet ready in one status write, as a fast controller would.
async fn run_replica_sets(sets: Api<ReplicaSet>) {
    let all = watcher(sets.clone(), watcher::Config::default()).default_backoff().applied_objects();
    all.try_for_each_concurrent(16, |set| {
        let sets = sets.clone();
        async move {
            let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let status = set.status.as_ref();
            let current = status.is_some_and(|s| s.observed_generation == set.metadata.generation && s.replicas == wanted);
            if !current {
                let status = json!({"status": {
                    "replicas": wanted, "readyReplicas": wanted, "availableReplicas": wanted, "observedGeneration": set.metadata.generation
                }});
                // An object that was deleted in the meantime needs no status.
                let _ = sets.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
            }
            Ok(())
        }
    })
    .await
    .unwrap();
}

/// Creates the ReplicaSet of the gateway's Deployment, and its pods, as soon as the Deployment
/// exists.
async fn run_gateway_deployment(
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    pods: Api<Pod>,
    gateways: Vec<(String, IpAddr)>,
) {
    let is_there = |it: Option<&Deployment>| it.is_some();
    let deployment =
        await_condition(deployments, "slipway-gateway", is_there).await.unwrap().unwrap();
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "slipway-gateway", "uid": deployment.uid(), "controller": true
    }]);
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": "slipway-gateway-1", "labels": gateway_labels(), "ownerReferences": owner},
        "spec": {
            "replicas": gateways.len(), "selector": {"matchLabels": gateway_labels()},
            "template": {
                "metadata": {"labels": gateway_labels()}, "spec": {"containers": [{"name": "gateway", "image": "gateway"}]}
            }
        }
    }))
    .unwrap();
    let uid = sets.create(&PostParams::default(), &set).await.unwrap().uid().unwrap();
    for (name, ip) in &gateways {
        create_gateway_pod(&pods, name, *ip, &uid).await;
    }
    std::future::pending().await
}

fn gateway_labels() -> Value {
    json!({
        "app.kubernetes.io/managed-by": "slipway", "app.kubernetes.io/part-of": "slipway-gateway",
        "app.kubernetes.io/component": "gateway"
    })
}

async fn create_gateway_pod(pods: &Api<Pod>, name: &str, ip: IpAddr, set: &str) {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "slipway-gateway-1", "uid": set, "controller": true}]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": gateway_labels(), "ownerReferences": owner},
        "spec": {"containers": [{"name": "gateway", "image": "gateway"}], "automountServiceAccountToken": false}
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({"status": {
        "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}], "conditions": [{"type": "Ready", "status": "True"}]
    }});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Gateways that apply the weights that they watch, and report a thousand answered requests for
/// each revision.
async fn run_gateways(models: Api<DeserializeGuard<ModelDeployment>>, said: Said) {
    let known = Mutex::new(BTreeMap::<String, Value>::new());
    let all = watcher(models, watcher::Config::default()).default_backoff().applied_objects();
    // Gateways ignore objects that cannot be deserialized.
    let readable = all.try_filter_map(|guarded| async { Ok(guarded.0.ok()) });
    readable
        .try_for_each(|object| {
            let traffic =
                object.status.as_ref().and_then(|s| s.traffic.clone()).unwrap_or_default();
            let per = |n: u64| {
                traffic
                    .backends
                    .iter()
                    .map(|b| (b.revision.clone(), n.into()))
                    .collect::<serde_json::Map<_, _>>()
            };
            let line = json!({
                "name": object.name_any(), "uid": object.uid(), "generation": traffic.generation,
                "requests": per(1000), "inFlight": per(0), "readyEndpoints": per(3), "brake": null
            });
            let mut known = known.lock().unwrap();
            known.insert(object.name_any(), line);
            let lines: Vec<Value> = known.values().cloned().collect();
            said.send_if_modified(|before| std::mem::replace(before, lines.clone()) != lines);
            async { Ok(()) }
        })
        .await
        .unwrap();
}

async fn serve_gateway(listener: TcpListener, pod: String, said: Said) {
    let state = Arc::new((pod, said));
    let router = Router::new().route("/v1/state", get(gateway_state)).with_state(state);
    axum::serve(listener, router).await.unwrap();
}

/// Sends a line at once, on every change, and every second.
async fn gateway_state(State(state): State<Arc<(String, Said)>>) -> Body {
    let (pod, said) = &*state;
    let begin = (pod.clone(), said.subscribe(), tokio::time::interval(Duration::from_secs(1)));
    let lines = stream::unfold(begin, |(pod, mut said, mut second)| async move {
        tokio::select! { _ = second.tick() => {}, _ = said.changed() => {} }
        let line = format!("{}\n", json!({"pod": pod, "models": *said.borrow_and_update()}));
        Some((Ok::<_, Infallible>(line), (pod, said, second)))
    });
    Body::from_stream(lines.boxed())
}

async fn serve_prometheus(listener: TcpListener) {
    let router = Router::new().route("/api/v1/query", post(answer_query));
    axum::serve(listener, router).await.unwrap();
}

/// Answers that both revisions of the query have answered very many requests, all successfully and
/// fast.
async fn answer_query(Form(form): Form<BTreeMap<String, String>>) -> String {
    let query = &form["query"];
    let revisions =
        query.split_once("revision=~\"").and_then(|(_, rest)| rest.split_once('"')).map(|(r, _)| r);
    let metrics = revisions.unwrap_or_default().split('|').flat_map(|revision| {
        if query.contains("_bucket") {
            vec![
                json!({"revision": revision, "le": "0.1"}),
                json!({"revision": revision, "le": "+Inf"}),
            ]
        } else {
            vec![json!({"revision": revision, "result": "good"})]
        }
    });
    let series: Vec<Value> =
        metrics.map(|metric| json!({"metric": metric, "value": [1, "1000000"]})).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": series}}).to_string()
}
