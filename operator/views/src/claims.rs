//! The holders of hosts and model names, by namespace, so that a reconcile need not read the other
//! ModelDeployments.

use std::collections::{BTreeSet, HashMap};

use kube::ResourceExt;
use parking_lot::RwLock;
use slipway_core::conflicts::{self, ClaimConflict};
use slipway_crds::routing::{ClaimRegistry, RouteClaimant, RoutingClaims};
use slipway_crds::v1alpha1::ModelDeployment;

use crate::cache::ViewChange;
use crate::fingerprint::{ModelClaims, ObjectFingerprint};

#[derive(Default)]
struct NamespaceClaims {
    /// By name. A ModelDeployment that can no longer be deserialized keeps its claims, as it does
    /// in gateways.
    by_name: HashMap<String, ModelClaims>,
    holders: ClaimRegistry,
}

/// The claims of all ModelDeployments.
#[derive(Default)]
pub struct AllClaims {
    namespaces: RwLock<HashMap<String, NamespaceClaims>>,
}

impl AllClaims {
    /// Applies changes. Returns the affected ModelDeployments as (namespace, name): those with a
    /// claim whose holder changed or is gone.
    ///
    /// Claimants that wait behind a holder are determined before all changes and after all of them,
    /// so that the cost of a list with many equal claims is linear in its length.
    pub fn apply_changes(
        &self,
        changes: &[ViewChange<ObjectFingerprint>],
    ) -> BTreeSet<(String, String)> {
        let mut all = self.namespaces.write();
        // Most events change only the status, and leave the claims as they are.
        let news = |change: &&ViewChange<ObjectFingerprint>| {
            let known =
                all.get(&change.owner.namespace).and_then(|it| it.by_name.get(&change.name));
            change.after.as_ref().map(|print| print.claims.as_ref().or(known)) != Some(known)
        };
        let changes: Vec<_> = changes.iter().filter(news).collect();
        let mut concerned = waiting_claimants(&all, &changes);
        for change in &changes {
            replace_claims(&mut all, change);
        }
        concerned.append(&mut waiting_claimants(&all, &changes));
        concerned
    }

    /// Number of ModelDeployments in a namespace.
    pub fn count_models(&self, namespace: &str) -> usize {
        let all = self.namespaces.read();
        all.get(namespace).map_or(0, |namespace| namespace.by_name.len())
    }

    /// The claims of an object that others hold.
    pub fn conflicts(&self, object: &ModelDeployment) -> Vec<ClaimConflict> {
        let all = self.namespaces.read();
        let namespace = object.namespace().and_then(|namespace| all.get(&namespace));
        let found = namespace.map(|it| {
            conflicts::find_conflicts(
                &it.holders,
                &RouteClaimant::from_object(object),
                &RoutingClaims::from_object(object),
            )
        });
        found.unwrap_or_default()
    }
}

fn waiting_claimants(
    all: &HashMap<String, NamespaceClaims>,
    changes: &[&ViewChange<ObjectFingerprint>],
) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for change in changes {
        let Some(namespace) = all.get(&change.owner.namespace) else { continue };
        let Some(ModelClaims { claimant, claims }) = namespace.by_name.get(&change.name) else {
            continue;
        };
        let names = namespace.holders.waiting_claimants(claimant, claims);
        found.extend(names.into_iter().map(|name| (change.owner.namespace.clone(), name)));
    }
    found
}

fn replace_claims(
    all: &mut HashMap<String, NamespaceClaims>,
    change: &ViewChange<ObjectFingerprint>,
) {
    let namespace = all.entry(change.owner.namespace.clone()).or_default();
    let claimed = match &change.after {
        Some(ObjectFingerprint { claims: None, .. }) => return,
        Some(ObjectFingerprint { claims: Some(claimed), .. }) => Some(claimed),
        None => None,
    };
    if let Some(before) = namespace.by_name.remove(&change.name) {
        namespace.holders.remove(&before.claimant, &before.claims);
    }
    if let Some(claimed) = claimed {
        namespace.holders.add(&claimed.claimant, &claimed.claims);
        namespace.by_name.insert(change.name.clone(), claimed.clone());
    }
    if namespace.by_name.is_empty() {
        all.remove(&change.owner.namespace);
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use slipway_core::conflicts::NameClaim;

    use super::*;
    use crate::fingerprint::{GuardedModel, fingerprint_model};
    use crate::own_writes::OwnWrites;
    use crate::views::ClusterViews;

    fn object(name: &str, day: u8, hosts: &[&str], model: &str) -> ModelDeployment {
        serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")},
            "spec": {"model": {"uri": "https://store/m", "name": model}, "traffic": {"hosts": hosts}}
        }))
        .unwrap()
    }

    fn guarded(object: &ModelDeployment) -> GuardedModel {
        serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
    }

    fn take(views: &ClusterViews, event: Event<GuardedModel>) -> Vec<String> {
        let mut concerned = BTreeSet::new();
        let seen = |changes: &[ViewChange<ObjectFingerprint>]| {
            concerned = views.claims.apply_changes(changes)
        };
        views.models.apply_event_with(
            event,
            |object| fingerprint_model(object, &OwnWrites::default()),
            seen,
        );
        concerned.into_iter().map(|(_, name)| name).collect()
    }

    fn holder(views: &ClusterViews, object: &ModelDeployment) -> Vec<(NameClaim, String)> {
        views.claims.conflicts(object).into_iter().map(|it| (it.claim, it.holder)).collect()
    }

    #[test]
    fn those_are_concerned_that_claim_what_has_another_holder() {
        let views = ClusterViews::default();
        let (old, young) =
            (object("z", 1, &["m.example.org"], "m"), object("a", 2, &["m.example.org"], "m"));
        let apart = object("b", 2, &["b.example.org"], "b");
        assert!(take(&views, Event::Apply(guarded(&young))).is_empty());
        assert!(take(&views, Event::Apply(guarded(&apart))).is_empty());
        assert_eq!(take(&views, Event::Apply(guarded(&old))), ["a"], "it loses what it held");
        let host = (NameClaim::Host("m.example.org".into()), "z".to_owned());
        assert_eq!(holder(&views, &young), [host, (NameClaim::ModelName("m".into()), "z".into())]);
        assert!(holder(&views, &old).is_empty() && holder(&views, &apart).is_empty());

        let gives_way = object("z", 1, &["z.example.org"], "m");
        assert_eq!(take(&views, Event::Apply(guarded(&gives_way))), ["a"]);
        assert_eq!(holder(&views, &young), [(NameClaim::ModelName("m".into()), "z".into())]);
        assert!(take(&views, Event::Apply(guarded(&young))).is_empty(), "nothing changed");
        assert_eq!(take(&views, Event::Delete(guarded(&gives_way))), ["a"]);
        assert!(holder(&views, &young).is_empty());
    }

    #[test]
    fn one_that_cannot_be_read_any_more_keeps_what_it_claimed() {
        let views = ClusterViews::default();
        let (old, young) =
            (object("z", 1, &["m.example.org"], "z"), object("a", 2, &["m.example.org"], "a"));
        take(&views, Event::Apply(guarded(&old)));
        take(&views, Event::Apply(guarded(&young)));
        let mut broken = serde_json::to_value(&old).unwrap();
        broken["spec"]["replicas"] = json!("many");
        let broken: GuardedModel = serde_json::from_value(broken).unwrap();
        assert!(broken.0.is_err());
        assert!(take(&views, Event::Apply(broken.clone())).is_empty());
        assert_eq!(holder(&views, &young), [(NameClaim::Host("m.example.org".into()), "z".into())]);
        assert_eq!(take(&views, Event::Delete(broken)), ["a"]);
    }

    /// Otherwise a thousand of them, created one after the other, would cause half a million
    /// reconciles.
    #[test]
    fn one_more_of_a_name_concerns_nobody_else() {
        let views = ClusterViews::default();
        take(&views, Event::Init);
        // From the youngest to the oldest: each is the holder until the next one is added.
        for number in (0..1000).rev() {
            let mut one = object(&format!("m{number}"), 1, &[], "m");
            one.metadata.uid = Some(format!("uid-{number:04}"));
            take(&views, Event::InitApply(guarded(&one)));
        }
        assert_eq!(take(&views, Event::InitDone).len(), 999);
        assert!(take(&views, Event::Apply(guarded(&object("n", 2, &[], "m")))).is_empty());
        assert_eq!(take(&views, Event::Apply(guarded(&object("o", 2, &[], "m")))).len(), 0);
        let oldest = views.claims.conflicts(&object("n", 2, &[], "m"));
        assert_eq!(oldest.first().map(|it| it.holder.as_str()), Some("m0"));
    }
}
