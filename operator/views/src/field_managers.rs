//! Field managers of the operator besides `slipway`, which applies whole objects.

/// Field manager of `spec.replicas` of ReplicaSets.
pub const SCALE_MANAGER: &str = "slipway-scale";
/// Field manager of the digest that a ReplicaSet's first pod told.
pub const DIGEST_MANAGER: &str = "slipway-digest";
/// Field manager of what ReplicaSets say of the past of their revisions.
pub const MARK_MANAGER: &str = "slipway-marks";
/// Field manager of the references to the owners of shared objects.
pub const OWNERS_MANAGER: &str = "slipway-owners";
/// Field manager of a number of pods that passes to an autoscaler.
pub const HANDOVER_MANAGER: &str = "slipway-handover";
