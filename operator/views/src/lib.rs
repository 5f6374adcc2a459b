//! Caches of the objects that the operator watches: of each object only the part that a plan reads,
//! indexed by the owning ModelDeployment or gateway; the conversion from Kubernetes objects; and
//! the cached state of single child objects.

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
