//! Changes of other clients to objects of the operator: an input of the next plan, which decides
//! when the objects are restored.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use parking_lot::Mutex;
use slipway_cluster_views::{ModelMemory, ObjectOwner};
use slipway_core::fields::ForeignChange;
use slipway_core::observed::ObjectDisturbance;
use slipway_objects::ObjectTarget;
use slipway_objects::desired::DesiredObject;

/// By owner, then by object; objects of a gateway are those of its namespace, whoever writes
/// them.
#[derive(Default)]
pub struct DisturbanceLog {
    inner: Mutex<DisturbanceState>,
}

#[derive(Default)]
struct DisturbanceState {
    by_owner: HashMap<ObjectOwner, BTreeMap<ObjectTarget, ObjectDisturbance>>,
    /// What we deleted ourselves and the watch has not brought back yet.
    deleted: HashSet<(ObjectOwner, ObjectTarget)>,
}

impl DisturbanceLog {
    /// Records that an object was written.
    pub fn record_applied(
        &self,
        owner: &ObjectOwner,
        desired: &DesiredObject,
        change: Option<&ForeignChange>,
        overridden: Option<String>,
        now: Timestamp,
    ) {
        let mut inner = self.inner.lock();
        let known = inner.by_owner.entry(owner.clone()).or_default();
        let target = desired.target();
        let after = ObjectDisturbance::after_apply(
            known.get(&target),
            desired.applied_hash(),
            change,
            overridden,
            now,
        );
        known.insert(target, after);
    }

    /// Notes that we delete an object: its end is no news.
    pub fn record_deletion(&self, owner: &ObjectOwner, target: ObjectTarget) {
        self.inner.lock().deleted.insert((owner.clone(), target));
    }

    /// Notes that an object is gone.
    pub fn record_removed(&self, owner: &ObjectOwner, target: ObjectTarget) {
        let mut inner = self.inner.lock();
        if !inner.deleted.remove(&(owner.clone(), target.clone())) {
            inner.by_owner.entry(owner.clone()).or_default().entry(target).or_default().removed =
                true;
        }
    }

    /// The disturbances for the plan of a ModelDeployment: those of its own objects and of the
    /// gateway's.
    pub fn for_model(
        &self,
        model: &ObjectOwner,
        now: Timestamp,
    ) -> BTreeMap<ObjectTarget, ObjectDisturbance> {
        let mut inner = self.inner.lock();
        let mut found = BTreeMap::new();
        for owner in [model.clone(), ObjectOwner::gateway(&model.namespace)] {
            let Some(known) = inner.by_owner.get_mut(&owner) else { continue };
            known.retain(|_, it| !it.is_over(now));
            found.extend(known.iter().map(|(target, it)| (target.clone(), it.clone())));
            if known.is_empty() {
                inner.by_owner.remove(&owner);
            }
        }
        found
    }
}

impl ModelMemory for DisturbanceLog {
    fn forget(&self, _: &str, owner: &ObjectOwner) {
        let mut inner = self.inner.lock();
        inner.by_owner.remove(owner);
        inner.deleted.retain(|(of, _)| of != owner);
    }

    fn remembers(&self, _: &str, owner: &ObjectOwner) -> bool {
        let inner = self.inner.lock();
        inner.by_owner.contains_key(owner) || inner.deleted.iter().any(|(of, _)| of == owner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;
    use slipway_objects::{GATEWAY, ManagedKind};

    use super::*;

    fn service(stamp: &str) -> DesiredObject {
        let metadata = json!({"name": "m", "annotations": {slipway_crds::labels::APPLIED: stamp}});
        let service: Service = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        DesiredObject::Service(service)
    }

    fn target(name: &str) -> ObjectTarget {
        ObjectTarget::new(ManagedKind::Service, name)
    }

    #[test]
    fn what_is_written_removed_and_written_again_is_remembered_for_a_while() {
        let (all, model, start) =
            (DisturbanceLog::default(), ObjectOwner::model("ns", "m"), Timestamp::UNIX_EPOCH);
        all.record_applied(&model, &service("x"), None, None, start);
        assert_eq!(all.for_model(&model, start)[&target("m")].restore_count, 0);
        all.record_removed(&model, target("m"));
        assert!(all.for_model(&model, start)[&target("m")].removed);
        all.record_applied(&model, &service("x"), Some(&ForeignChange::Removed), None, start);
        let known = all.for_model(&model, start)[&target("m")].clone();
        assert_eq!((known.removed, known.restore_count), (false, 1));
        let later = start + SignedDuration::from_mins(3);
        assert!(all.for_model(&model, later).is_empty());
        assert!(all.inner.lock().by_owner.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn what_we_delete_is_not_missed() {
        let (all, model) = (DisturbanceLog::default(), ObjectOwner::model("ns", "m"));
        all.record_deletion(&model, target("m-preview"));
        all.record_removed(&model, target("m-preview"));
        assert!(all.for_model(&model, Timestamp::UNIX_EPOCH).is_empty());
        let gateway = ObjectTarget::new(ManagedKind::Deployment, GATEWAY);
        all.record_removed(&ObjectOwner::gateway("ns"), gateway.clone());
        assert!(
            all.for_model(&model, Timestamp::UNIX_EPOCH)[&gateway].removed,
            "the neighbours' too"
        );
        all.record_removed(&model, target("m"));
        all.forget("u", &model);
        assert_eq!(
            all.for_model(&model, Timestamp::UNIX_EPOCH).len(),
            1,
            "of one that is gone nothing is missed"
        );
    }
}
