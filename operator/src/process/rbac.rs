//! What the operator does with the API, as rules of RBAC. A test compares this table with the
//! chart.

use slipway_objects::ManagedKind;

/// Verbs on one resource.
#[derive(Clone, Copy, Debug)]
pub struct RbacRule {
    /// API group.
    pub group: &'static str,
    /// Resource, with its subresource.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const fn rbac_rule(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> RbacRule {
    RbacRule { group, resource, verbs }
}

/// Verbs on a kind that is written.
const fn kind_rule(kind: ManagedKind, verbs: &'static [&'static str]) -> RbacRule {
    rbac_rule(kind.api_group(), kind.resource(), verbs)
}

/// A watch lists first.
const READ: &[&str] = &["list", "watch"];
/// Server-side apply is `patch`, and `create` where the object is missing; `get` tells a foreign
/// object from one that the caches lack. `delete` is also needed where nothing is ever deleted:
/// with the admission plug-in OwnerReferencesPermissionEnforcement only who may delete an object
/// may give it a further owner, as every ModelDeployment of a namespace but the first does with the
/// gateway.
const OWNED: &[&str] = &["list", "watch", "get", "create", "patch", "delete"];

/// In the namespaces that are looked after.
pub const CLUSTER_RULES: &[RbacRule] = &[
    rbac_rule("ml.slipway.dev", "modeldeployments", READ),
    rbac_rule("ml.slipway.dev", "modeldeployments/status", &["patch"]),
    // `spec.replicas` where it is left out.
    rbac_rule("ml.slipway.dev", "modeldeployments/scale", &["update"]),
    // Owner references that block the owner's deletion.
    rbac_rule("ml.slipway.dev", "modeldeployments/finalizers", &["update"]),
    kind_rule(ManagedKind::ReplicaSet, OWNED),
    kind_rule(ManagedKind::Service, OWNED),
    kind_rule(ManagedKind::HorizontalPodAutoscaler, OWNED),
    kind_rule(ManagedKind::PodDisruptionBudget, OWNED),
    // Also where none are made: those that were made before are taken away.
    kind_rule(ManagedKind::NetworkPolicy, OWNED),
    kind_rule(ManagedKind::Deployment, OWNED),
    kind_rule(ManagedKind::ServiceAccount, OWNED),
    // The keys of a namespace: made, and never read.
    rbac_rule("", "secrets", &["create"]),
    kind_rule(ManagedKind::RoleBinding, OWNED),
    // Which of several operators looks after a namespace. `delete`, as above: it gets another
    // owner.
    rbac_rule(
        "coordination.k8s.io",
        "leases",
        &["list", "watch", "get", "create", "update", "delete"],
    ),
    // Which settings a namespace has for its gateway.
    rbac_rule("", "namespaces", READ),
    kind_rule(ManagedKind::Pod, READ),
    // Restarts: by eviction, so that disruption budgets hold.
    rbac_rule("", "pods/eviction", &["create"]),
    rbac_rule("events.k8s.io", "events", &["create", "patch"]),
    // The gateways' RoleBinding names this ClusterRole.
    rbac_rule("rbac.authorization.k8s.io", "clusterroles", &["bind"]),
];

/// In the namespace of the lease.
pub const LEASE_RULES: &[RbacRule] = &[
    rbac_rule("coordination.k8s.io", "leases", &["get", "create", "patch"]),
    // The operator's own key: one Secret, by its name, which the chart makes.
    rbac_rule("", "secrets", &["get", "patch"]),
];
