//! The caches of all watched kinds.

use slipway_core::observed::ObjectView;
use slipway_objects::{GATEWAY, ManagedKind};

use crate::cache::{ObjectOwner, ViewCache};
use crate::claims::AllClaims;
use crate::field_sets::FieldSets;
use crate::fingerprint::ObjectFingerprint;
use crate::object_views::CachedReplicaSet;
use crate::pod_views::CachedPod;
use crate::update_verdicts::UpdateVerdicts;

/// One cache a kind, and what their views have in common. The ModelDeployments themselves are in
/// kube's store, which the Controller needs.
#[derive(Default)]
pub struct ClusterViews {
    /// What is known of each ModelDeployment besides the object: whether it changed.
    pub models: ViewCache<ObjectFingerprint>,
    /// Who holds hosts and the names of models; of the same watch.
    pub claims: AllClaims,
    /// ReplicaSets.
    pub replica_sets: ViewCache<CachedReplicaSet>,
    /// Services.
    pub services: ViewCache<ObjectView>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: ViewCache<ObjectView>,
    /// PodDisruptionBudgets, of ModelDeployments and of gateways.
    pub disruption_budgets: ViewCache<ObjectView>,
    /// ReplicaSets of gateways, which the Deployment controller makes.
    pub gateway_sets: ViewCache<ObjectView>,
    /// Deployments of gateways.
    pub deployments: ViewCache<ObjectView>,
    /// ServiceAccounts of gateways.
    pub service_accounts: ViewCache<ObjectView>,
    /// RoleBindings of gateways.
    pub role_bindings: ViewCache<ObjectView>,
    /// NetworkPolicies, of ModelDeployments and of gateways.
    pub network_policies: ViewCache<ObjectView>,
    /// Which gateways may be updated now.
    pub gateway_updates: UpdateVerdicts,
    /// Pods of runtimes and gateways.
    pub pods: ViewCache<CachedPod>,
    /// Which fields of the objects are ours.
    pub field_sets: FieldSets,
}

impl ClusterViews {
    /// Whether a pod with the labels of a gateway is one: made by a ReplicaSet of the Deployment
    /// that the operator made, in a namespace with a ModelDeployment. Labels are anybody's to
    /// write.
    pub fn is_gateway(&self, namespace: &str, pod: &CachedPod) -> bool {
        let owner = ObjectOwner::gateway(namespace);
        let Some((name, uid)) = &pod.controller else { return false };
        let set = self
            .gateway_sets
            .get(&owner, name)
            .map(|entry| entry.view)
            .filter(|set| set.uid == *uid);
        let deployment = self.deployments.get(&owner, GATEWAY).map(|entry| entry.view.uid);
        set.is_some_and(|set| set.controller.is_some() && set.controller == deployment)
            && self.models.has_models(namespace)
    }

    /// The cache of a kind of which no more than an [`ObjectView`] is kept.
    pub fn object_views(&self, kind: ManagedKind) -> Option<&ViewCache<ObjectView>> {
        match kind {
            ManagedKind::Service => Some(&self.services),
            ManagedKind::HorizontalPodAutoscaler => Some(&self.autoscalers),
            ManagedKind::PodDisruptionBudget => Some(&self.disruption_budgets),
            ManagedKind::ServiceAccount => Some(&self.service_accounts),
            ManagedKind::RoleBinding => Some(&self.role_bindings),
            ManagedKind::Deployment => Some(&self.deployments),
            ManagedKind::NetworkPolicy => Some(&self.network_policies),
            ManagedKind::ReplicaSet | ManagedKind::Pod => None,
        }
    }

    /// Whether every first list is complete.
    pub fn are_synced(&self) -> bool {
        self.models.is_synced()
            && self.replica_sets.is_synced()
            && self.pods.is_synced()
            && self.gateway_sets.is_synced()
            && self.all_object_views().all(ViewCache::is_synced)
    }

    /// Waits for that: a plan on half a view could create or delete wrongly. False: it never will
    /// be.
    pub async fn wait_until_synced(&self) -> bool {
        for cache in self.all_object_views() {
            if !cache.wait_until_synced().await {
                return false;
            }
        }
        self.models.wait_until_synced().await
            && self.replica_sets.wait_until_synced().await
            && self.pods.wait_until_synced().await
            && self.gateway_sets.wait_until_synced().await
    }

    fn all_object_views(&self) -> impl Iterator<Item = &ViewCache<ObjectView>> {
        ManagedKind::ALL.into_iter().filter_map(|kind| self.object_views(kind))
    }
}
