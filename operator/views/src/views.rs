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

/// One cache per kind, and data that their views share. The ModelDeployments themselves are in
/// kube's store, which the controller needs.
#[derive(Default)]
pub struct ClusterViews {
    /// Fingerprints of the ModelDeployments, to detect changes.
    pub models: ViewCache<ObjectFingerprint>,
    /// Holders of hosts and model names, derived from the watch of ModelDeployments.
    pub claims: AllClaims,
    pub replica_sets: ViewCache<CachedReplicaSet>,
    pub services: ViewCache<ObjectView>,
    pub autoscalers: ViewCache<ObjectView>,
    /// PodDisruptionBudgets of ModelDeployments and of gateways.
    pub disruption_budgets: ViewCache<ObjectView>,
    /// ReplicaSets of gateways, which the Deployment controller creates.
    pub gateway_sets: ViewCache<ObjectView>,
    /// Deployments of gateways.
    pub deployments: ViewCache<ObjectView>,
    /// ServiceAccounts of gateways.
    pub service_accounts: ViewCache<ObjectView>,
    /// RoleBindings of gateways.
    pub role_bindings: ViewCache<ObjectView>,
    /// NetworkPolicies of ModelDeployments and of gateways.
    pub network_policies: ViewCache<ObjectView>,
    /// Which gateways may be updated now.
    pub gateway_updates: UpdateVerdicts,
    /// Pods of model servers and gateways.
    pub pods: ViewCache<CachedPod>,
    /// Shared sets of the objects' managed fields.
    pub field_sets: FieldSets,
}

impl ClusterViews {
    /// Whether a pod with the labels of a gateway is a gateway pod: its ReplicaSet belongs to the
    /// operator's Deployment, in a namespace with a ModelDeployment. Labels alone prove nothing,
    /// because any client can set them.
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

    /// The cache of a kind whose view is an [`ObjectView`].
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

    /// Whether all first lists are complete.
    pub fn are_synced(&self) -> bool {
        self.models.is_synced()
            && self.replica_sets.is_synced()
            && self.pods.is_synced()
            && self.gateway_sets.is_synced()
            && self.all_object_views().all(ViewCache::is_synced)
    }

    /// Waits until all first lists are complete: a plan from incomplete caches could create or
    /// delete objects wrongly. Returns false when they never will be.
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
