//! Field managers of the operator besides `slipway`, which applies whole objects.

/// Field manager of `spec.replicas` of ReplicaSets.
pub const SCALE_MANAGER: &str = "slipway-scale";
/// Field manager of the model digest that the first pod of a ReplicaSet reported.
pub const DIGEST_MANAGER: &str = "slipway-digest";
/// Field manager of the annotations of ReplicaSets about the history of their revision.
pub const MARK_MANAGER: &str = "slipway-marks";
/// Field manager of the owner references of shared objects.
pub const OWNERS_MANAGER: &str = "slipway-owners";
/// Field manager of a replica count that is handed over to an autoscaler.
pub const HANDOVER_MANAGER: &str = "slipway-handover";
