use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use slipway_cluster_views::{
    FieldSets, GuardedModel, OwnWrites, cached_pod, cached_replica_set, fingerprint_model,
    object_view,
};
use slipway_objects::settings::PlanSettings;
use slipway_testkit::{plan_settings, replica_set_of};

use super::*;

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

pub(crate) fn settings() -> PlanSettings {
    PlanSettings { network_policies: None, ..plan_settings() }
}

fn model() -> ModelDeployment {
    yaml(
        "
apiVersion: ml.slipway.dev/v1alpha1
kind: ModelDeployment
metadata: {name: digits, namespace: ns, uid: u-digits}
spec: {model: {uri: 'http://store/m'}}
",
    )
}

#[test]
fn a_replica_set_of_somebody_else_is_not_owned() {
    for (controller, owned) in [("u-digits", true), ("u-former", false)] {
        let views = ClusterViews::default();
        let read = |o: &ReplicaSet| {
            Some((ObjectOwner::from_labels(o)?, cached_replica_set(o, &FieldSets::default())?))
        };
        views.replica_sets.apply_event(Event::Apply(replica_set_of(controller)), read);
        let observed = observe_model(
            model(),
            &views,
            |_| (None, None),
            None,
            None,
            BTreeMap::new(),
            &settings(),
        );
        assert_eq!(observed.replica_sets[0].owned, owned, "{controller}");
    }
}

fn gateway_pod(name: &str, extra: &str) -> Pod {
    made_by("u-set", name, extra)
}

fn made_by(set: &str, name: &str, extra: &str) -> Pod {
    yaml(&format!(
        "
metadata:
  name: {name}
  namespace: ns
  uid: u-{name}
  labels: {{app.kubernetes.io/managed-by: slipway, app.kubernetes.io/component: gateway}}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: {set}, uid: {set}, controller: true}}]
{extra}
"
    ))
}

/// A namespace with a ModelDeployment and a gateway of the operator: Deployment `slipway-gateway`
/// with the ReplicaSet `u-set`.
fn views_of_gateway() -> ClusterViews {
    let views = ClusterViews::default();
    let kept = |meta: &str| -> kube::core::PartialObjectMeta<ReplicaSet> {
        yaml(&format!(
            "
metadata:
  namespace: ns
  labels: {{app.kubernetes.io/managed-by: slipway, app.kubernetes.io/component: gateway}}
{meta}
"
        ))
    };
    let fields = FieldSets::default();
    let view = |o: &kube::core::PartialObjectMeta<ReplicaSet>| {
        Some((ObjectOwner::from_labels(o)?, object_view(o, &fields)?))
    };
    views
        .deployments
        .apply_event(Event::Apply(kept("  name: slipway-gateway\n  uid: u-deployment")), view);
    for (set, deployment) in [("u-set", "u-deployment"), ("u-foreign", "u-other")] {
        let owner = format!(
            "apiVersion: apps/v1, kind: Deployment, name: d, uid: {deployment}, controller: true"
        );
        let meta = format!("  name: {set}\n  uid: {set}\n  ownerReferences: [{{{owner}}}]");
        views.gateway_sets.apply_event(Event::Apply(kept(&meta)), view);
    }
    let own = OwnWrites::default();
    let guarded: GuardedModel =
        serde_json::from_value(serde_json::to_value(model()).unwrap()).unwrap();
    views.models.apply_event(Event::Apply(guarded), |o| fingerprint_model(o, &own));
    views
}

/// Regression test: the operator connected to pods of another Deployment with the labels of a
/// gateway; they blocked confirmations, and could have reported a brake.
#[test]
fn only_pods_of_the_operators_deployment_are_gateways() {
    let ready = "status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}";
    let seen = |views: &ClusterViews| {
        for (set, name) in [("u-set", "ours"), ("u-foreign", "theirs"), ("u-unknown", "nobodys")] {
            views.pods.apply_event(Event::Apply(made_by(set, name, ready)), |o| {
                Some((ObjectOwner::from_labels(o)?, cached_pod(o)?))
            });
        }
        let observed = observe_model(
            model(),
            views,
            |_| (None, None),
            None,
            None,
            BTreeMap::new(),
            &settings(),
        );
        observed.gateway.pods.into_iter().map(|pod| pod.name).collect::<Vec<_>>()
    };
    assert_eq!(seen(&views_of_gateway()), ["ours"]);
    assert!(
        seen(&ClusterViews::default()).is_empty(),
        "there is no Deployment, and no ModelDeployment"
    );
}

#[test]
fn a_gateway_pod_that_leaves_counts_while_it_speaks() {
    let views = views_of_gateway();
    let ready = "status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}";
    let leaving = "  deletionTimestamp: 2026-01-01T00:00:00Z\nstatus: {podIP: 10.0.0.2}";
    for pod_ in [
        gateway_pod("ready", ready),
        gateway_pod("starting", ""),
        gateway_pod("leaves", leaving),
        gateway_pod("left", leaving),
    ] {
        views.pods.apply_event(Event::Apply(pod_), |o| {
            Some((ObjectOwner::from_labels(o)?, cached_pod(o)?))
        });
    }
    let heard =
        |uid: &str| (matches!(uid, "u-ready" | "u-leaves").then(GatewayReport::default), None);
    let observed = observe_model(model(), &views, heard, None, None, BTreeMap::new(), &settings());
    let seen: Vec<_> = observed
        .gateway
        .pods
        .iter()
        .map(|p| (p.name.as_str(), p.ready, p.report.is_some()))
        .collect();
    assert_eq!(seen, [("leaves", false, true), ("ready", true, true), ("starting", false, false)]);
    assert!(observed.pod_problems.is_empty(), "pods of the gateway are not the model's");
}

#[test]
fn other_children_are_known_by_name() {
    let views = ClusterViews::default();
    let service: k8s_openapi::api::core::v1::Service = yaml(
        "
metadata:
  name: digits
  namespace: ns
  uid: u-svc
  labels: {ml.slipway.dev/modeldeployment: digits}
  annotations: {ml.slipway.dev/applied: abc}
  ownerReferences: [{apiVersion: v, kind: k, name: n, uid: u-digits}]
",
    );
    views.services.apply_event(Event::Apply(service), |o| {
        Some((ObjectOwner::from_labels(o)?, object_view(o, &FieldSets::default())?))
    });
    let observed =
        observe_model(model(), &views, |_| (None, None), None, None, BTreeMap::new(), &settings());
    let expected = ObjectView {
        managed_fields: Default::default(),
        controller: None,
        uid: "u-svc".into(),
        applied_hash: "abc".into(),
        owners: vec!["u-digits".into()],
        failure: String::new(),
        desired_replicas: None,
        rolled_out: false,
    };
    assert_eq!(observed.child(ManagedKind::Service, "digits"), Some(&expected));
    assert!(observed.gateway.objects.is_empty());
}
