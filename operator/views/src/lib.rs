//! Caches of what the operator watches: of each object only what a plan looks at, indexed by the
//! ModelDeployment or gateway that it belongs to, with the conversion from Kubernetes objects and
//! what is known of one child object.

mod cache;
mod claims;
mod field_managers;
mod field_sets;
mod fingerprint;
mod known_objects;
mod model_memory;
mod object_views;
mod own_writes;
mod pod_views;
mod update_verdicts;
mod views;

pub use cache::{CacheEntry, ObjectOwner, ViewCache, ViewChange, version_of};
pub use claims::AllClaims;
pub use field_managers::{
    DIGEST_MANAGER, HANDOVER_MANAGER, MARK_MANAGER, OWNERS_MANAGER, SCALE_MANAGER,
};
pub use field_sets::FieldSets;
pub use fingerprint::{
    GuardedModel, ModelClaims, ObjectFingerprint, ReconcileTrigger, fingerprint_model, status_hash,
};
pub use known_objects::KnownObject;
pub use model_memory::ModelMemory;
pub use object_views::{
    CachedReplicaSet, autoscaler_view, cached_replica_set, deployment_view, object_view,
};
pub use own_writes::OwnWrites;
pub use pod_views::{CachedPod, cached_pod};
pub use update_verdicts::UpdateVerdicts;
pub use views::ClusterViews;
