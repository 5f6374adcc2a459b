//! What the operator does with the API, as rules of RBAC. A test compares this table with the chart.

/// Verbs on one resource.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// API group.
    pub group: &'static str,
    /// Resource, with its subresource.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const fn rule(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Rule {
    Rule { group, resource, verbs }
}

/// A watch lists first.
const READ: &[&str] = &["list", "watch"];
/// Server-side apply is `patch`, and `create` where the object is missing; `get` tells a foreign object from one that the caches lack. `delete` is
/// also needed where nothing is ever deleted: with the admission plug-in OwnerReferencesPermissionEnforcement only who may delete an object may give it
/// a further owner, as every ModelDeployment of a namespace but the first does with the gateway.
const OWNED: &[&str] = &["list", "watch", "get", "create", "patch", "delete"];

/// In the namespaces that are looked after.
pub const CLUSTER: &[Rule] = &[
    rule("ml.slipway.dev", "modeldeployments", READ),
    rule("ml.slipway.dev", "modeldeployments/status", &["patch"]),
    // `spec.replicas` where it is left out.
    rule("ml.slipway.dev", "modeldeployments/scale", &["update"]),
    // Owner references that block the owner's deletion.
    rule("ml.slipway.dev", "modeldeployments/finalizers", &["update"]),
    rule("apps", "replicasets", OWNED),
    rule("", "services", OWNED),
    rule("autoscaling", "horizontalpodautoscalers", OWNED),
    rule("policy", "poddisruptionbudgets", OWNED),
    // Also where none are made: those that were made before are taken away.
    rule("networking.k8s.io", "networkpolicies", OWNED),
    rule("apps", "deployments", OWNED),
    rule("", "serviceaccounts", OWNED),
    // The keys of a namespace: made, and never read.
    rule("", "secrets", &["create"]),
    rule("rbac.authorization.k8s.io", "rolebindings", OWNED),
    // Which of several operators looks after a namespace. `delete`, as above: it gets another owner.
    rule("coordination.k8s.io", "leases", &["list", "watch", "get", "create", "update", "delete"]),
    // Which settings a namespace has for its gateway.
    rule("", "namespaces", READ),
    rule("", "pods", READ),
    // Restarts: by eviction, so that disruption budgets hold.
    rule("", "pods/eviction", &["create"]),
    rule("events.k8s.io", "events", &["create", "patch"]),
    // The gateways' RoleBinding names this ClusterRole.
    rule("rbac.authorization.k8s.io", "clusterroles", &["bind"]),
];

/// In the namespace of the lease.
pub const LEASE: &[Rule] = &[
    rule("coordination.k8s.io", "leases", &["get", "create", "patch"]),
    // The operator's own key: one Secret, by its name, which the chart makes.
    rule("", "secrets", &["get", "patch"]),
];
