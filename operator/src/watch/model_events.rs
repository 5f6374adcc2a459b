//! Handles events of the watch of ModelDeployments.

use std::collections::BTreeSet;

use kube::runtime::watcher::Event;
use slipway_cluster_views::{
    ClusterViews, GuardedModel, ObjectFingerprint, OwnWrites, ReconcileTrigger, ViewChange,
    fingerprint_model,
};

/// Applies an event of the main watch. Returns what changed, and the other ModelDeployments that
/// gain or lose a host or model name through the change.
pub fn apply_model_event(
    views: &ClusterViews,
    own: &OwnWrites,
    event: Event<GuardedModel>,
) -> (Vec<ViewChange<ObjectFingerprint>>, Vec<ReconcileTrigger>) {
    let mut concerned = BTreeSet::new();
    let seen =
        |changes: &[ViewChange<ObjectFingerprint>]| concerned = views.claims.apply_changes(changes);
    let changes =
        views.models.apply_event_with(event, |object| fingerprint_model(object, own), seen);
    let neighbours =
        concerned.iter().map(|(namespace, name)| ReconcileTrigger::new(name).within(namespace));
    (changes, neighbours.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_neighbour_is_looked_at_when_a_host_is_left_to_it() {
        let (views, own) = (ClusterViews::default(), OwnWrites::default());
        let take = |name: &str, day: u8, hosts: &[&str]| {
            let object: GuardedModel = serde_json::from_value(json!({
                "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
                "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": hosts.len(),
                             "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
                "spec": {"model": {"uri": "https://store/m"}, "traffic": {"hosts": hosts}}
            }))
            .unwrap();
            let (changes, neighbours) = apply_model_event(&views, &own, Event::Apply(object));
            let names: Vec<String> = neighbours.into_iter().map(|trigger| trigger.name).collect();
            (changes.len(), names)
        };
        assert_eq!(take("old", 1, &["m.example.org"]), (1, vec![]));
        assert_eq!(take("young", 2, &["m.example.org"]), (1, vec![]));
        assert_eq!(take("old", 1, &[]), (1, vec!["young".to_owned()]));
    }
}
