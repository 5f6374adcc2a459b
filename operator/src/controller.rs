//! Every watch, with the reason why it exists, and the controller that they feed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use slipway_core::observed::ObjectView;
use slipway_crds::labels;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cache::{ObjectOwner, ViewCache, ViewChange};
use crate::context::ReconcileContext;
use crate::managed_fields::FieldSets;
use crate::model_watch::{GuardedModel, ObjectFingerprint, fingerprint_model};
use crate::own_writes::OwnWrites;
use crate::reconcile::{on_error, reconcile_model};
use crate::views::ClusterViews;
use crate::{observe, too_large};

/// Gathers what changes together, such as a ReplicaSet and its pods, into one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Reconciles at one time. They wait for the API server most of the time.
const CONCURRENCY: u16 = 16;
/// Objects in one page of a list: bounds the memory of a start with many objects.
const PAGE_SIZE: u32 = 200;
/// Of ModelDeployments fewer: each may have the 1.5 MB of an object in etcd before it is found to
/// be too large.
const MODEL_PAGE_SIZE: u32 = 25;

type ReconcileTrigger = ObjectRef<GuardedModel>;
type TriggerStream = BoxStream<'static, ReconcileTrigger>;

/// What is watched.
#[derive(Clone)]
pub struct WatchScope {
    /// Client.
    pub client: kube::Client,
    /// One namespace, or all.
    pub namespace: Option<String>,
}

impl WatchScope {
    /// Objects of a kind that are watched.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// Runs the controller until `ctx.stop`; reconciles that have begun are finished.
pub async fn run_controller(
    scope: WatchScope,
    ctx: Arc<ReconcileContext>,
    pushed: UnboundedReceiver<ReconcileTrigger>,
) {
    let (reader, writer) = reflector::store::<GuardedModel>();
    let pushed =
        stream::unfold(pushed, |mut from| async move { from.recv().await.map(|t| (t, from)) });
    // The main watch feeds the store; what triggers is decided by `print`, so the stream of objects
    // itself triggers nothing.
    let controller = Controller::for_stream(stream::pending(), reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_on(watch_models(&scope, &ctx, writer))
        .reconcile_on(watch_children(&scope, &ctx))
        // Gateways that confirmed, braked, drained or went silent, and new evidence.
        .reconcile_on(pushed)
        .graceful_shutdown_on(ctx.stop.clone().cancelled_owned());
    controller
        .run(reconcile_model, on_error, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                // Failures of reconciles are logged where they happen; the rest is an object that
                // has gone meanwhile.
                tracing::debug!(%error, "controller");
            }
        })
        .await;
}

/// ModelDeployments: specs, commands of people, statuses that others wrote.
fn watch_models(
    scope: &WatchScope,
    ctx: &Arc<ReconcileContext>,
    writer: reflector::store::Writer<GuardedModel>,
) -> TriggerStream {
    let ctx = Arc::clone(ctx);
    watcher::watcher(
        scope.api::<GuardedModel>(),
        watcher::Config::default().page_size(MODEL_PAGE_SIZE),
    )
    .default_backoff()
    // Of these only those that say whether an autoscaler wrote `spec.replicas`.
    .modify(|object| {
        object.managed_fields_mut().retain(|entry| entry.subresource.as_deref() == Some("scale"));
        too_large::reject_too_large(object);
    })
    .reflect(writer)
    .filter_map({
        let ctx = Arc::clone(&ctx);
        move |event| std::future::ready(ok_or_log(event, &ctx))
    })
    .flat_map(move |event| {
        let (changes, mut triggers) = apply_model_event(&ctx.views, &ctx.own_writes, event);
        for change in changes {
            let object = ObjectRef::new(&change.name).within(&change.owner.namespace);
            let uid = |p: &Option<ObjectFingerprint>| p.as_ref().map(|p| p.uid.clone());
            match (uid(&change.before), uid(&change.after)) {
                (Some(before), after) if Some(&before) != after.as_ref() => {
                    ctx.forget(&before, &object)
                }
                _ => {}
            }
            if change.after.is_some() {
                triggers.push(object);
            }
        }
        stream::iter(triggers)
    })
    .boxed()
}

/// Takes in an event of the main watch. Gives what changed, and the neighbours to whom a host or
/// the name of a model is lost or left.
fn apply_model_event(
    views: &ClusterViews,
    own: &OwnWrites,
    event: Event<GuardedModel>,
) -> (Vec<ViewChange<ObjectFingerprint>>, Vec<ReconcileTrigger>) {
    let mut concerned = BTreeSet::new();
    let seen =
        |changes: &[ViewChange<ObjectFingerprint>]| concerned = views.claims.apply_changes(changes);
    let changes =
        views.models.apply_event_with(event, |object| fingerprint_model(object, own), seen);
    let neighbours =
        concerned.iter().map(|(namespace, name)| ObjectRef::new(name).within(namespace));
    (changes, neighbours.collect())
}

/// Children: only those that carry our labels, and of most only the metadata.
fn watch_children(scope: &WatchScope, ctx: &Arc<ReconcileContext>) -> TriggerStream {
    let mut all: Vec<TriggerStream> = Vec::new();
    // Counts of pods, and ReplicaSets that somebody scaled or deleted.
    all.push(watch_managed(
        scope,
        ctx,
        |v| &v.replica_sets,
        |o: &ReplicaSet, fields| {
            Some((ObjectOwner::from_labels(o)?, observe::cached_replica_set(o, fields)?))
        },
    ));
    // Pods that cannot start, and gateways that come and go.
    let selector = format!(
        "{}={},{} in ({},{})",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::COMPONENT,
        labels::COMPONENT_RUNTIME,
        labels::COMPONENT_GATEWAY
    );
    let pods =
        |o: &Pod, _: &FieldSets| Some((ObjectOwner::from_labels(o)?, observe::cached_pod(o)?));
    all.push(watch_selected(
        scope,
        ctx,
        &selector,
        |v| &v.pods,
        pods,
        |ctx, change| {
            if change.owner.model.is_none() {
                ctx.gateway_streams.follow(change);
            }
        },
    ));
    // Which of the pods with the labels of gateways are gateways.
    let selector = format!(
        "{}={},{}={}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::COMPONENT,
        labels::COMPONENT_GATEWAY
    );
    let sets = |o: &PartialObjectMeta<ReplicaSet>, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, observe::object_view(o, fields)?))
    };
    all.push(watch_selected(scope, ctx, &selector, |v| &v.gateway_sets, sets, |_, _| {}));
    // Deployments: also why Kubernetes makes no pods for them.
    let deployments = |o: &Deployment, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, observe::deployment_view(o, fields)?))
    };
    all.push(watch_managed(scope, ctx, |v| &v.deployments, deployments));
    // Autoscalers: also what they want, which is not told elsewhere while it is what
    // `spec.replicas` says.
    let autoscalers = |o: &HorizontalPodAutoscaler, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, observe::autoscaler_view(o, fields)?))
    };
    all.push(watch_managed(scope, ctx, |v| &v.autoscalers, autoscalers));
    // The rest: only whether each is there, and as it was applied last, which the metadata tells
    // (`managedFields`).
    all.push(watch_metadata::<Service>(scope, ctx, |v| &v.services));
    all.push(watch_metadata::<PodDisruptionBudget>(scope, ctx, |v| &v.disruption_budgets));
    all.push(watch_metadata::<ServiceAccount>(scope, ctx, |v| &v.service_accounts));
    all.push(watch_metadata::<RoleBinding>(scope, ctx, |v| &v.role_bindings));
    all.push(watch_metadata::<NetworkPolicy>(scope, ctx, |v| &v.network_policies));
    stream::select_all(all).boxed()
}

fn watch_metadata<K>(
    scope: &WatchScope,
    ctx: &Arc<ReconcileContext>,
    cache: fn(&ClusterViews) -> &ViewCache<ObjectView>,
) -> TriggerStream
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let view = |o: &PartialObjectMeta<K>, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, observe::object_view(o, fields)?))
    };
    watch_managed(scope, ctx, cache, view)
}

fn watch_managed<K, V>(
    scope: &WatchScope,
    ctx: &Arc<ReconcileContext>,
    cache: fn(&ClusterViews) -> &ViewCache<V>,
    view: impl Fn(&K, &FieldSets) -> Option<(ObjectOwner, V)> + Send + 'static,
) -> TriggerStream
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    V: SharedView + Clone + PartialEq + Send + Sync + 'static,
{
    let gone = |ctx: &ReconcileContext, change: &ViewChange<V>| {
        if change.after.is_none() && is_wanted(&ctx.views, &change.owner) {
            ctx.disturbances
                .record_removed(&change.owner, format!("{} {}", K::kind(&()), change.name));
        }
    };
    watch_selected(
        scope,
        ctx,
        &format!("{}={}", labels::MANAGED_BY, labels::MANAGER),
        cache,
        view,
        gone,
    )
}

/// What goes is missed only where there is a ModelDeployment that would have it.
fn is_wanted(views: &ClusterViews, owner: &ObjectOwner) -> bool {
    match &owner.model {
        Some(name) => views.models.get(owner, name).is_some(),
        None => !views.models.models_where(&owner.namespace, |_| true).is_empty(),
    }
}

/// One watch: feeds its cache, lets `seen` look at each change, and triggers whoever the change
/// concerns.
fn watch_selected<K, V>(
    scope: &WatchScope,
    ctx: &Arc<ReconcileContext>,
    selector: &str,
    cache: fn(&ClusterViews) -> &ViewCache<V>,
    view: impl Fn(&K, &FieldSets) -> Option<(ObjectOwner, V)> + Send + 'static,
    seen: impl Fn(&ReconcileContext, &ViewChange<V>) + Send + 'static,
) -> TriggerStream
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    V: SharedView + Clone + PartialEq + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(selector).page_size(PAGE_SIZE);
    let ctx = Arc::clone(ctx);
    watcher::watcher(scope.api::<K>(), config)
        .default_backoff()
        .flat_map(move |event| {
            let Some(event) = ok_or_log(event, &ctx) else {
                return stream::iter(Vec::new());
            };
            let changes =
                cache(&ctx.views).apply_event(event, |object| view(object, &ctx.views.field_sets));
            let mut triggers = Vec::new();
            for change in &changes {
                seen(&ctx, change);
                triggers.extend(affected_models(&ctx.views, change));
            }
            stream::iter(triggers)
        })
        .boxed()
}

/// A view of an object that several ModelDeployments may share.
trait SharedView {
    /// UIDs of the owners of the one and not of the other, when nothing else differs.
    fn owners_changed(&self, _other: &Self) -> Option<Vec<String>> {
        None
    }
}

impl SharedView for observe::CachedReplicaSet {}

impl SharedView for observe::CachedPod {}

impl SharedView for ObjectView {
    fn owners_changed(&self, other: &Self) -> Option<Vec<String>> {
        let others = |view: &Self| Self { owners: Vec::new(), ..view.clone() };
        let same = others(self) == others(other);
        let only = |a: &Self, b: &Self| -> Vec<String> {
            a.owners.iter().filter(|o| !b.owners.contains(o)).cloned().collect()
        };
        same.then(|| [only(self, other), only(other, self)].concat())
    }
}

/// The ModelDeployments that a change concerns: a gateway concerns all of its namespace, but not
/// with every owner that it gets or loses.
fn affected_models<V: SharedView>(
    views: &ClusterViews,
    change: &ViewChange<V>,
) -> Vec<ReconcileTrigger> {
    let namespace = &change.owner.namespace;
    let names = match (&change.owner.model, &change.before, &change.after) {
        (Some(model), ..) => vec![model.clone()],
        (None, Some(before), Some(after)) => match after.owners_changed(before) {
            Some(uids) => views.models.models_where(namespace, |print| uids.contains(&print.uid)),
            None => views.models.models_where(namespace, |_| true),
        },
        (None, ..) => views.models.models_where(namespace, |_| true),
    };
    names.iter().map(|name| ObjectRef::new(name).within(namespace)).collect()
}

pub(crate) fn ok_or_log<K>(
    event: Result<Event<K>, watcher::Error>,
    ctx: &ReconcileContext,
) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()>,
{
    match event {
        Ok(event) => Some(event),
        Err(error) => {
            ctx.metrics.watch_errors.inc();
            tracing::warn!(kind = %K::kind(&()), %error, "watch ended and starts again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use slipway_core::fields::ManagedFields;

    use super::*;

    fn gateway(applied: &str, owners: &[&str]) -> ObjectView {
        let owners = owners.iter().map(|o| (*o).to_owned()).collect();
        ObjectView {
            uid: "u".into(),
            applied_hash: applied.into(),
            managed_fields: ManagedFields::default(),
            owners,
            controller: None,
            failure: String::new(),
            desired_replicas: None,
            rolled_out: false,
        }
    }

    fn concerned(before: Option<ObjectView>, after: Option<ObjectView>) -> Vec<String> {
        let views = ClusterViews::default();
        for name in ["a", "b", "c"] {
            let object: GuardedModel = serde_json::from_value(json!({
                "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
                "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
                "spec": {"model": {"uri": "http://store/m"}}
            }))
            .unwrap();
            views
                .models
                .apply_event(Event::Apply(object), |o| fingerprint_model(o, &OwnWrites::default()));
        }
        let change = ViewChange {
            owner: ObjectOwner::gateway("ns"),
            name: "slipway-gateway".into(),
            before,
            after,
        };
        let mut names: Vec<String> =
            affected_models(&views, &change).into_iter().map(|t| t.name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_neighbour_is_looked_at_when_a_host_is_left_to_it() {
        let (views, own) = (ClusterViews::default(), OwnWrites::default());
        let take = |name: &str, day: u8, hosts: &[&str]| {
            let object: GuardedModel = serde_json::from_value(json!({
                "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
                "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": hosts.len(),
                             "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
                "spec": {"model": {"uri": "https://store/m"}, "traffic": {"hosts": hosts}}
            }))
            .unwrap();
            let (changes, neighbours) = apply_model_event(&views, &own, Event::Apply(object));
            let names: Vec<String> = neighbours.into_iter().map(|trigger| trigger.name).collect();
            (changes.len(), names)
        };
        assert_eq!(take("old", 1, &["m.example.org"]), (1, vec![]));
        assert_eq!(take("young", 2, &["m.example.org"]), (1, vec![]));
        assert_eq!(take("old", 1, &[]), (1, vec!["young".to_owned()]));
    }

    #[test]
    fn a_further_owner_of_the_gateway_concerns_nobody_else() {
        let one = || Some(gateway("x", &["uid-a"]));
        assert_eq!(concerned(one(), Some(gateway("x", &["uid-a", "uid-b"]))), ["b"]);
        assert_eq!(concerned(one(), Some(gateway("y", &["uid-a"]))), ["a", "b", "c"]);
        assert_eq!(concerned(one(), None), ["a", "b", "c"]);
        assert_eq!(concerned(None, one()), ["a", "b", "c"]);
    }
}
