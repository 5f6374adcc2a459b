//! Which ModelDeployment of a namespace holds a host or a model name. Gateways route by this rule
//! and the operator detects conflicts by it, so it is implemented only once.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;

use crate::v1alpha1::ModelDeployment;

/// Normalizes a host for comparison: the value of `Host` or `:authority` without the port and the
/// final dot, in lower case.
pub fn normalize_host(authority: &str) -> Cow<'_, str> {
    let host = authority.split(':').next().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The name in a host that has the form of a Service's address in `namespace`: `<name>`,
/// `<name>.<namespace>`, `<name>.<namespace>.svc` and so on. Such a host always belongs to the
/// ModelDeployment of that name, even one that is created later; declaring it has no effect.
pub fn service_name<'a>(host: &'a str, namespace: &str) -> Option<&'a str> {
    let mut labels = host.split('.');
    let name = labels.next()?;
    let ours = match (labels.next(), labels.next()) {
        // Clients of a port-forward send `localhost`. A ModelDeployment of this name must not
        // receive the requests for all others.
        (None, _) => name != "localhost",
        (Some(second), third) => second == namespace && third.is_none_or(|label| label == "svc"),
    };
    ours.then_some(name)
}

/// The hosts and the model name that a ModelDeployment claims, besides the addresses of its
/// Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingClaims {
    /// Declared hosts, normalized by [`normalize_host`].
    pub hosts: BTreeSet<String>,
    /// Claimed model name.
    pub model_name: String,
}

impl RoutingClaims {
    /// The claims of `object`.
    pub fn from_object(object: &ModelDeployment) -> Self {
        let spec = &object.spec;
        let model_name = spec.model.name.clone().unwrap_or_else(|| object.name_any());
        Self::new(&object.namespace().unwrap_or_default(), &spec.traffic.hosts, model_name)
    }

    /// The claims of a ModelDeployment in `namespace` that declares `hosts`. Hosts of the form of a
    /// Service's address are not claims: see [`service_name`].
    pub fn new(namespace: &str, hosts: &[String], model_name: String) -> Self {
        let declared = hosts.iter().map(|declared| normalize_host(declared).into_owned());
        Self {
            hosts: declared.filter(|host| service_name(host, namespace).is_none()).collect(),
            model_name,
        }
    }
}

/// A ModelDeployment that claims hosts and a model name. If several claim the same, the smallest
/// one holds it: the one created first, and among those created in the same second the one with the
/// smaller UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteClaimant {
    /// Creation time in seconds since 1970, the resolution of the API server.
    pub created: i64,
    /// UID of the ModelDeployment.
    pub uid: String,
    /// Name of the ModelDeployment.
    pub name: String,
}

impl RouteClaimant {
    /// The claimant for `object`. An object without a creation time counts as younger than all
    /// others.
    pub fn from_object(object: &impl ResourceExt) -> Self {
        Self {
            created: object.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second()),
            uid: object.uid().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

type ClaimIndex = HashMap<String, BTreeSet<Arc<RouteClaimant>>>;

/// The claims of all ModelDeployments of one namespace.
#[derive(Clone, Debug, Default)]
pub struct ClaimRegistry {
    hosts: ClaimIndex,
    model_names: ClaimIndex,
}

impl ClaimRegistry {
    /// The ModelDeployment that holds a host; `host` is normalized by [`normalize_host`].
    pub fn host_holder(&self, host: &str) -> Option<&RouteClaimant> {
        first_claimant(&self.hosts, host)
    }

    /// The ModelDeployment that holds a model name.
    pub fn model_name_holder(&self, name: &str) -> Option<&RouteClaimant> {
        first_claimant(&self.model_names, name)
    }

    /// Adds the claims of a ModelDeployment.
    pub fn add(&mut self, claimant: &Arc<RouteClaimant>, claims: &RoutingClaims) {
        for host in &claims.hosts {
            self.hosts.entry(host.clone()).or_default().insert(Arc::clone(claimant));
        }
        self.model_names.entry(claims.model_name.clone()).or_default().insert(Arc::clone(claimant));
    }

    /// Removes the claims of a ModelDeployment.
    pub fn remove(&mut self, claimant: &RouteClaimant, claims: &RoutingClaims) {
        for host in &claims.hosts {
            remove_claimant(&mut self.hosts, host, claimant);
        }
        remove_claimant(&mut self.model_names, &claims.model_name, claimant);
    }

    /// Names of the ModelDeployments that claim what `claimant` holds. They are affected when the
    /// claims of `claimant` change.
    pub fn waiting_claimants(
        &self,
        claimant: &RouteClaimant,
        claims: &RoutingClaims,
    ) -> BTreeSet<String> {
        let hosts = claims.hosts.iter().filter_map(|host| self.hosts.get(host));
        let all = hosts.chain(self.model_names.get(&claims.model_name));
        let held =
            all.filter(|claimants| claimants.first().is_some_and(|first| **first == *claimant));
        held.flat_map(|claimants| claimants.iter().skip(1))
            .map(|other| other.name.clone())
            .collect()
    }
}

fn first_claimant<'a>(index: &'a ClaimIndex, key: &str) -> Option<&'a RouteClaimant> {
    index.get(key)?.first().map(AsRef::as_ref)
}

fn remove_claimant(index: &mut ClaimIndex, key: &str, claimant: &RouteClaimant) {
    let Some(claimants) = index.get_mut(key) else { return };
    claimants.remove(claimant);
    if claimants.is_empty() {
        index.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(
        name: &str,
        uid: &str,
        created: &str,
        hosts: &[&str],
        model: &str,
    ) -> ModelDeployment {
        serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "team", "uid": uid, "creationTimestamp": created},
            "spec": {"model": {"uri": "https://store/m", "name": model}, "traffic": {"hosts": hosts}}
        }))
        .unwrap()
    }

    fn add(
        holders: &mut ClaimRegistry,
        object: &ModelDeployment,
    ) -> (Arc<RouteClaimant>, RoutingClaims) {
        let (claimant, claims) =
            (Arc::new(RouteClaimant::from_object(object)), RoutingClaims::from_object(object));
        holders.add(&claimant, &claims);
        (claimant, claims)
    }

    #[test]
    fn hosts_are_compared_without_port_final_dot_and_case() {
        for (authority, expected) in [
            ("a.example.org", "a.example.org"),
            ("A.Example.ORG:8080", "a.example.org"),
            ("a.example.org.:80", "a.example.org"),
            ("", ""),
            (".", ""),
            ("[::1]:80", "["),
        ] {
            assert_eq!(normalize_host(authority), expected, "{authority}");
        }
    }

    #[test]
    fn addresses_of_services_are_known_by_their_form() {
        for ours in ["a", "a.team", "a.team.svc", "a.team.svc.cluster.local"] {
            assert_eq!(service_name(ours, "team"), Some("a"), "{ours}");
        }
        for other in [
            "localhost",
            "a.example",
            "a.team.example.org",
            "a.other.svc",
            "10.0.0.7",
            "models.example.org",
        ] {
            assert_eq!(service_name(other, "team"), None, "{other}");
        }
    }

    #[test]
    fn a_host_of_the_form_of_a_services_address_is_no_claim() {
        let claims = RoutingClaims::from_object(&object(
            "a",
            "1",
            "2026-01-01T00:00:00Z",
            &["b.team", "M.example.org"],
            "m",
        ));
        assert_eq!(claims.hosts, BTreeSet::from(["m.example.org".to_owned()]));
        let unnamed: ModelDeployment = serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "a"},
            "spec": {"model": {"uri": "https://store/m"}}
        }))
        .unwrap();
        assert_eq!(RoutingClaims::from_object(&unnamed).model_name, "a");
    }

    #[test]
    fn the_older_one_holds_whatever_the_order_of_arrival() {
        let old = object("z", "9", "2026-01-01T00:00:00Z", &["m.example.org"], "m");
        let same_second = object("y", "5", "2026-01-02T00:00:00Z", &["m.example.org"], "m");
        let young = object("a", "7", "2026-01-02T00:00:00Z", &["m.example.org"], "m");
        for order in [
            [&old, &same_second, &young],
            [&young, &same_second, &old],
            [&same_second, &old, &young],
        ] {
            let mut holders = ClaimRegistry::default();
            let known: HashMap<String, _> =
                order.iter().map(|object| (object.name_any(), add(&mut holders, object))).collect();
            let held = |holders: &ClaimRegistry| {
                let host = holders.host_holder("m.example.org").map(|it| it.name.clone());
                assert_eq!(holders.model_name_holder("m").map(|it| it.name.clone()), host);
                host
            };
            assert_eq!(held(&holders).as_deref(), Some("z"));
            let (z, claims) = &known["z"];
            assert_eq!(
                holders.waiting_claimants(z, claims),
                BTreeSet::from(["a".to_owned(), "y".to_owned()])
            );
            assert!(
                holders.waiting_claimants(&known["y"].0, claims).is_empty(),
                "it holds nothing"
            );
            holders.remove(z, claims);
            assert_eq!(held(&holders).as_deref(), Some("y"), "of one second the lesser UID");
            holders.remove(&known["y"].0, claims);
            holders.remove(&known["a"].0, claims);
            assert_eq!(held(&holders), None);
        }
    }
}
