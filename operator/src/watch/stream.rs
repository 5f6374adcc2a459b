//! The watch of one kind: it updates a cache and triggers the ModelDeployments that a change
//! affects.

use std::fmt::Debug;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use slipway_cluster_views::{
    CachedPod, CachedReplicaSet, ClusterViews, FieldSets, ObjectOwner, ReconcileTrigger, ViewCache,
    ViewChange,
};
use slipway_core::observed::ObjectView;

use crate::watch::context::{WatchContext, ok_or_log};

/// Objects per page of a list: limits the memory at start with many objects.
const PAGE_SIZE: u32 = 200;

/// The ModelDeployments that a watch triggers.
pub type TriggerStream = BoxStream<'static, ReconcileTrigger>;

/// Watches one kind: updates its cache, passes each change to `seen`, and triggers the affected
/// ModelDeployments.
pub fn watch_selected<K, V>(
    ctx: &WatchContext,
    selector: &str,
    cache: fn(&ClusterViews) -> &ViewCache<V>,
    view: impl Fn(&K, &FieldSets) -> Option<(ObjectOwner, V)> + Send + 'static,
    seen: impl Fn(&ViewChange<V>) + Send + 'static,
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
    let ctx = ctx.clone();
    watcher::watcher(ctx.api::<K>(), config)
        .default_backoff()
        .flat_map(move |event| {
            let Some(event) = ok_or_log(event, &ctx.metrics) else {
                return stream::iter(Vec::new());
            };
            let changes =
                cache(&ctx.views).apply_event(event, |object| view(object, &ctx.views.field_sets));
            let mut triggers = Vec::new();
            for change in &changes {
                seen(change);
                triggers.extend(affected_models(&ctx.views, change));
            }
            stream::iter(triggers)
        })
        .boxed()
}

/// A view of an object that several ModelDeployments may share.
pub trait SharedView {
    /// UIDs of the owners that only one of both has, provided that nothing else differs.
    fn owners_changed(&self, _other: &Self) -> Option<Vec<String>> {
        None
    }
}

impl SharedView for CachedReplicaSet {}

impl SharedView for CachedPod {}

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

/// The ModelDeployments that a change affects. A change of a gateway affects all of its namespace;
/// when only its owners change, only the added and removed owners.
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
    names.iter().map(|name| ReconcileTrigger::new(name).within(namespace)).collect()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use slipway_cluster_views::{GuardedModel, OwnWrites, fingerprint_model};
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
    fn a_further_owner_of_the_gateway_concerns_nobody_else() {
        let one = || Some(gateway("x", &["uid-a"]));
        assert_eq!(concerned(one(), Some(gateway("x", &["uid-a", "uid-b"]))), ["b"]);
        assert_eq!(concerned(one(), Some(gateway("y", &["uid-a"]))), ["a", "b", "c"]);
        assert_eq!(concerned(one(), None), ["a", "b", "c"]);
        assert_eq!(concerned(None, one()), ["a", "b", "c"]);
    }
}
