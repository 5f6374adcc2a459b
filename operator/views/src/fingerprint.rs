//! Determines which changes of a ModelDeployment need a reconcile. The operator writes the status:
//! the watch also reports its own writes, which must not cause another reconcile, while a status
//! that another client wrote must be corrected at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use slipway_crds::routing::{RouteClaimant, RoutingClaims};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

use crate::cache::ObjectOwner;
use crate::own_writes::OwnWrites;

/// The main type of the controller: an object that cannot be deserialized does not stop the stream
/// of the others.
pub type GuardedModel = DeserializeGuard<ModelDeployment>;

/// The ModelDeployment to reconcile.
pub type ReconcileTrigger = ObjectRef<GuardedModel>;

/// The hosts and model name that one ModelDeployment claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelClaims {
    pub(crate) claimant: Arc<RouteClaimant>,
    pub(crate) claims: Arc<RoutingClaims>,
}

impl ModelClaims {
    /// The claims of a ModelDeployment.
    pub fn from_object(object: &ModelDeployment) -> Self {
        Self {
            claimant: Arc::new(RouteClaimant::from_object(object)),
            claims: Arc::new(RoutingClaims::from_object(object)),
        }
    }
}

/// Identifies one state of a ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFingerprint {
    pub uid: String,
    /// Its claims to hosts and a model name; `None` when the object cannot be deserialized.
    pub claims: Option<ModelClaims>,
    meta: u64,
    status: StatusMark,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StatusMark {
    /// The status that this process sent last.
    Own,
    /// The hash of any other status.
    Other(u64),
}

/// The fingerprint of an object that the watch reported.
pub fn fingerprint_model(
    object: &GuardedModel,
    own: &OwnWrites,
) -> Option<(ObjectOwner, ObjectFingerprint)> {
    let uid = object.uid()?;
    let mut hasher = DefaultHasher::new();
    let meta = kube::Resource::meta(object);
    meta.generation.hash(&mut hasher);
    meta.annotations.hash(&mut hasher);
    meta.labels.hash(&mut hasher);
    meta.finalizers.hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    let status = match &object.0 {
        Ok(valid) => status_hash(valid.status.as_ref()),
        Err(invalid) => invalid.error.len() as u64,
    };
    let mark = if own.is_own(&uid, status) { StatusMark::Own } else { StatusMark::Other(status) };
    let owner = ObjectOwner::model(&object.namespace()?, &object.name_any());
    let claimed = object.0.as_ref().ok().map(ModelClaims::from_object);
    Some((owner, ObjectFingerprint { uid, claims: claimed, meta: hasher.finish(), status: mark }))
}

/// Hash of a status in its serialized form: serialization drops fractions of seconds, so two
/// statuses are comparable only in that form.
pub fn status_hash(status: Option<&ModelDeploymentStatus>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&status).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64, replicas: i32) -> GuardedModel {
        serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": "ns", "uid": "u", "generation": generation},
            "spec": {"model": {"uri": "http://store/m"}},
            "status": {"replicas": replicas, "selector": ""}
        }))
        .unwrap()
    }

    fn printed(object: &GuardedModel, own: &OwnWrites) -> ObjectFingerprint {
        fingerprint_model(object, own).unwrap().1
    }

    #[test]
    fn own_status_writes_are_no_news_and_those_of_others_are() {
        let own = OwnWrites::default();
        let send = |o: &GuardedModel| {
            own.record_sent("u", status_hash(o.0.as_ref().unwrap().status.as_ref()))
        };
        send(&object(1, 1));
        let first = printed(&object(1, 1), &own);
        send(&object(1, 2));
        assert_eq!(printed(&object(1, 2), &own), first, "our own write");
        assert_ne!(printed(&object(1, 7), &own), first, "somebody else's status");
        assert_ne!(printed(&object(2, 2), &own), first, "a new spec");
    }

    #[test]
    fn commands_of_people_are_news() {
        let own = OwnWrites::default();
        let mut commanded = object(1, 1);
        commanded.annotations_mut().insert("ml.slipway.dev/abort".into(), "1".into());
        assert_ne!(printed(&commanded, &own), printed(&object(1, 1), &own));
    }

    #[test]
    fn numbers_where_users_write_them_are_read() {
        let object: GuardedModel = serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m"},
            "spec": {
                "model": {"uri": "http://store/m"}, "template": {"spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": 1}}}]}},
                "strategy": {"canary": {"steps": [{"setWeight": 5}, {"setWeight": "0.5%"}]}}
            }
        }))
        .unwrap();
        assert!(object.0.is_ok(), "{:?}", object.0);
    }
}
