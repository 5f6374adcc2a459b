//! The RBAC rules that the operator needs. A test compares this table with the chart.

use slipway_objects::ManagedKind;

/// The verbs used on one resource.
#[derive(Clone, Copy, Debug)]
pub struct RbacRule {
    pub group: &'static str,
    /// Resource, with its subresource.
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
}

const fn rbac_rule(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> RbacRule {
    RbacRule { group, resource, verbs }
}

/// The rule for a managed kind.
const fn kind_rule(kind: ManagedKind, verbs: &'static [&'static str]) -> RbacRule {
    rbac_rule(kind.api_group(), kind.resource(), verbs)
}

/// A watch starts with a list.
const READ: &[&str] = &["list", "watch"];
/// Server-side apply needs `patch`, and `create` when the object is missing; `get` distinguishes a
/// foreign object from one that the caches lack. `delete` is needed even for kinds that are never
/// deleted: with the admission plug-in OwnerReferencesPermissionEnforcement, only a client that may
/// delete an object may add an owner to it, as every ModelDeployment of a namespace except the
/// first does with the gateway.
const OWNED: &[&str] = &["list", "watch", "get", "create", "patch", "delete"];

/// Rules for the managed namespaces.
pub const CLUSTER_RULES: &[RbacRule] = &[
    rbac_rule("ml.slipway.dev", "modeldeployments", READ),
    rbac_rule("ml.slipway.dev", "modeldeployments/status", &["patch"]),
    // For `spec.replicas` where the user omits it.
    rbac_rule("ml.slipway.dev", "modeldeployments/scale", &["update"]),
    // For owner references that block the owner's deletion.
    rbac_rule("ml.slipway.dev", "modeldeployments/finalizers", &["update"]),
    kind_rule(ManagedKind::ReplicaSet, OWNED),
    kind_rule(ManagedKind::Service, OWNED),
    kind_rule(ManagedKind::HorizontalPodAutoscaler, OWNED),
    kind_rule(ManagedKind::PodDisruptionBudget, OWNED),
    // Also needed when policies are disabled: existing ones are deleted.
    kind_rule(ManagedKind::NetworkPolicy, OWNED),
    kind_rule(ManagedKind::Deployment, OWNED),
    kind_rule(ManagedKind::ServiceAccount, OWNED),
    // The keys of a namespace are created and never read.
    rbac_rule("", "secrets", &["create"]),
    kind_rule(ManagedKind::RoleBinding, OWNED),
    // The Lease states which of several operators manages a namespace. `delete` for the same
    // reason as in `OWNED`: the Lease gets another owner.
    rbac_rule(
        "coordination.k8s.io",
        "leases",
        &["list", "watch", "get", "create", "update", "delete"],
    ),
    // For the gateway settings of a namespace.
    rbac_rule("", "namespaces", READ),
    kind_rule(ManagedKind::Pod, READ),
    // Restarts use evictions, so that disruption budgets are respected.
    rbac_rule("", "pods/eviction", &["create"]),
    rbac_rule("events.k8s.io", "events", &["create", "patch"]),
    // The gateways' RoleBinding references this ClusterRole.
    rbac_rule("rbac.authorization.k8s.io", "clusterroles", &["bind"]),
];

/// Rules for the namespace of the lease.
pub const LEASE_RULES: &[RbacRule] = &[
    rbac_rule("coordination.k8s.io", "leases", &["get", "create", "patch"]),
    // The operator's own key: one Secret, restricted by name, that the chart creates.
    rbac_rule("", "secrets", &["get", "patch"]),
];
