//! The kinds that we write, and what the caches know of one object of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use slipway_core::desired::{ChildKind, DesiredObject};
use slipway_core::fields::ManagedFields;
use slipway_core::observed::ObjectView;

use crate::cache::{ObjectOwner, ViewCache};
use crate::views::ClusterViews;

/// How long a plan waits for the watch to bring back what was written. A watch that is slower than
/// this is broken, and the preconditions of the writes keep a stale plan harmless.
pub(crate) const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(2);

/// A kind that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the kinds")]
pub enum ManagedKind {
    ReplicaSet,
    Service,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    ServiceAccount,
    RoleBinding,
    Deployment,
    NetworkPolicy,
    Pod,
}

impl ManagedKind {
    /// Name of the kind.
    pub fn kind_name(self) -> &'static str {
        match self {
            Self::ReplicaSet => "ReplicaSet",
            Self::Service => "Service",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::ServiceAccount => "ServiceAccount",
            Self::RoleBinding => "RoleBinding",
            Self::Deployment => "Deployment",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Pod => "Pod",
        }
    }
}

impl From<&DesiredObject> for ManagedKind {
    fn from(desired: &DesiredObject) -> Self {
        match desired {
            DesiredObject::ReplicaSet(_) => Self::ReplicaSet,
            DesiredObject::Service(_) => Self::Service,
            DesiredObject::HorizontalPodAutoscaler(_) => Self::HorizontalPodAutoscaler,
            DesiredObject::PodDisruptionBudget(_) => Self::PodDisruptionBudget,
            DesiredObject::ServiceAccount(_) => Self::ServiceAccount,
            DesiredObject::RoleBinding(_) => Self::RoleBinding,
            DesiredObject::Deployment(_) => Self::Deployment,
            DesiredObject::NetworkPolicy(_) => Self::NetworkPolicy,
        }
    }
}

impl From<ChildKind> for ManagedKind {
    fn from(kind: ChildKind) -> Self {
        match kind {
            ChildKind::ReplicaSet => Self::ReplicaSet,
            ChildKind::Service => Self::Service,
            ChildKind::HorizontalPodAutoscaler => Self::HorizontalPodAutoscaler,
            ChildKind::Deployment => Self::Deployment,
            ChildKind::NetworkPolicy => Self::NetworkPolicy,
        }
    }
}

/// What the caches know of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownObject {
    /// UID.
    pub uid: String,
    /// Resource version.
    pub version: u64,
    /// UIDs of its owners; of a ReplicaSet its controller.
    pub owners: Vec<String>,
    /// UID of its controller.
    pub controller: Option<String>,
    /// Hash of what was applied last.
    pub applied: String,
    /// Which of its fields are ours.
    pub managed: ManagedFields,
}

impl ClusterViews {
    /// What is known of an object that carries our labels.
    pub fn known_object(
        &self,
        child: ManagedKind,
        owner: &ObjectOwner,
        name: &str,
    ) -> Option<KnownObject> {
        let plain = |cache: &ViewCache<ObjectView>| {
            cache.get(owner, name).map(|e| KnownObject {
                uid: e.view.uid,
                version: e.version,
                owners: e.view.owners,
                controller: e.view.controller,
                applied: e.view.applied_hash,
                managed: e.view.managed_fields,
            })
        };
        match child {
            ManagedKind::ReplicaSet => self.replica_sets.get(owner, name).map(|e| KnownObject {
                uid: e.view.view.uid,
                version: e.version,
                owners: e.view.controller.iter().cloned().collect(),
                controller: e.view.controller,
                applied: e.view.view.applied_hash,
                managed: e.view.view.managed_fields,
            }),
            ManagedKind::Service => plain(&self.services),
            ManagedKind::HorizontalPodAutoscaler => plain(&self.autoscalers),
            ManagedKind::PodDisruptionBudget => plain(&self.disruption_budgets),
            ManagedKind::ServiceAccount => plain(&self.service_accounts),
            ManagedKind::RoleBinding => plain(&self.role_bindings),
            ManagedKind::Deployment => plain(&self.deployments),
            ManagedKind::NetworkPolicy => plain(&self.network_policies),
            // Pods are evicted and never applied.
            ManagedKind::Pod => self.pods.get(owner, name).map(|e| KnownObject {
                uid: e.view.uid,
                version: e.version,
                owners: Vec::new(),
                controller: e.view.controller.map(|(_, uid)| uid),
                applied: String::new(),
                managed: ManagedFields::default(),
            }),
        }
    }
}

/// A write that the watch shall bring back.
#[derive(Clone, Debug)]
pub struct WriteExpectation {
    /// Kind.
    pub child: ManagedKind,
    /// To whom it belongs.
    pub owner: ObjectOwner,
    /// Name.
    pub name: String,
    /// What is awaited.
    pub awaited: AwaitedState,
}

/// What is awaited of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwaitedState {
    /// This resource version or a later one.
    Version(u64),
    /// No object of this UID that is not being deleted.
    Deleted(String),
}

impl WriteExpectation {
    fn is_met(&self, views: &ClusterViews) -> bool {
        let known = views.known_object(self.child, &self.owner, &self.name);
        match &self.awaited {
            AwaitedState::Version(version) => known.is_some_and(|k| k.version >= *version),
            AwaitedState::Deleted(uid) => {
                let deleting = || match self.child {
                    ManagedKind::ReplicaSet => views
                        .replica_sets
                        .get(&self.owner, &self.name)
                        .is_some_and(|e| e.view.view.deleting),
                    ManagedKind::Pod => {
                        views.pods.get(&self.owner, &self.name).is_some_and(|e| e.view.deleting)
                    }
                    _ => false,
                };
                known.is_none_or(|k| k.uid != *uid) || deleting()
            }
        }
    }
}

/// Writes that have not come back yet, by UID of the ModelDeployment. Planning waits for them, so
/// that nothing is done twice.
#[derive(Default)]
pub struct WriteExpectations {
    by_uid: Mutex<HashMap<String, Vec<(WriteExpectation, Instant)>>>,
}

impl WriteExpectations {
    /// Notes a write.
    pub fn expect(&self, uid: &str, expectation: WriteExpectation, now: Instant) {
        let mut all = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(uid.to_owned()).or_default().push((expectation, now + EXPECTATION_TIMEOUT));
    }

    /// How long to wait at most for what is still missing; nothing: the caches have it all, or
    /// patience is over.
    pub fn remaining_wait(
        &self,
        uid: &str,
        views: &ClusterViews,
        now: Instant,
    ) -> Option<Duration> {
        let mut all = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.get_mut(uid)?;
        open.retain(|(expectation, until)| *until > now && !expectation.is_met(views));
        let wait = open.iter().map(|(_, until)| until.duration_since(now)).max();
        if wait.is_none() {
            all.remove(uid);
        }
        wait
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn service(version: u64) -> Service {
        serde_json::from_value(json!({"metadata": {
            "name": "m", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string(),
            "labels": {"ml.slipway.dev/modeldeployment": "m"}
        }}))
        .unwrap()
    }

    fn put(views: &ClusterViews, event: Event<Service>) {
        views.services.apply_event(event, |s| {
            Some((
                ObjectOwner::from_labels(s)?,
                crate::observe::object_view(s, &Default::default())?,
            ))
        });
    }

    fn expectation(awaited: AwaitedState) -> WriteExpectation {
        WriteExpectation {
            child: ManagedKind::Service,
            owner: ObjectOwner::model("ns", "m"),
            name: "m".into(),
            awaited,
        }
    }

    #[test]
    fn a_plan_waits_for_its_own_writes_and_not_for_ever() {
        let (views, expectations, now) =
            (ClusterViews::default(), WriteExpectations::default(), Instant::now());
        expectations.expect("x", expectation(AwaitedState::Version(7)), now);
        assert_eq!(expectations.remaining_wait("x", &views, now), Some(EXPECTATION_TIMEOUT));
        put(&views, Event::Apply(service(6)));
        assert!(
            expectations.remaining_wait("x", &views, now).is_some(),
            "still the version before"
        );
        put(&views, Event::Apply(service(7)));
        assert_eq!(expectations.remaining_wait("x", &views, now), None);
        expectations.expect("x", expectation(AwaitedState::Version(99)), now);
        assert_eq!(
            expectations.remaining_wait("x", &views, now + EXPECTATION_TIMEOUT),
            None,
            "patience is over"
        );
    }

    #[test]
    fn a_deleted_object_is_awaited_to_go() {
        let (views, expectations, now) =
            (ClusterViews::default(), WriteExpectations::default(), Instant::now());
        put(&views, Event::Apply(service(1)));
        expectations.expect("x", expectation(AwaitedState::Deleted("u".into())), now);
        assert!(expectations.remaining_wait("x", &views, now).is_some());
        put(&views, Event::Delete(service(2)));
        assert_eq!(expectations.remaining_wait("x", &views, now), None);
    }
}
