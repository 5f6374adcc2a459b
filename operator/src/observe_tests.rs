use kube::runtime::watcher::Event;
use slipway_core::settings::PlanSettings;

use super::*;

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

pub(crate) fn settings() -> PlanSettings {
    PlanSettings {
        gateway_image: "gateway:1".into(),
        operator_public_key: None,
        gateway_replicas: 2,
        gateway_autoscaler: slipway_core::settings::GatewayAutoscaler::None,
        gateway_problem: None,
        gateway_template: slipway_crds::v1alpha1::PodTemplatePatch::default(),
        fixed_user_ids: true,
        runtime_image: "runtime:1".into(),
        redis_image: "redis:1".into(),
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: Vec::new(),
        prometheus_matchers: Vec::new(),
        promql_gates: true,
        tracing: None,
        network_policies: None,
    }
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

fn replica_set_of(controller: &str) -> ReplicaSet {
    yaml(&format!(
        "
metadata:
  name: digits-aaaa
  namespace: ns
  uid: u-rs
  generation: 3
  creationTimestamp: 2026-01-02T03:04:05Z
  labels: {{app.kubernetes.io/managed-by: slipway, ml.slipway.dev/modeldeployment: digits, ml.slipway.dev/revision: aaaa}}
  annotations: {{ml.slipway.dev/version: v1}}
  ownerReferences:
  - {{apiVersion: ml.slipway.dev/v1alpha1, kind: ModelDeployment, name: digits, uid: {controller}, controller: true}}
spec:
  replicas: 4
  selector: {{}}
status: {{replicas: 3, readyReplicas: 2, availableReplicas: 1, observedGeneration: 2}}
"
    ))
}

fn pod_with(status: &str) -> Pod {
    yaml(&format!(
        "
metadata:
  name: digits-aaaa-x
  namespace: ns
  uid: u-pod
  labels: {{app.kubernetes.io/component: runtime, ml.slipway.dev/modeldeployment: digits, ml.slipway.dev/revision: aaaa}}
status:
{status}
"
    ))
}

fn problem_of(status: &str) -> Option<(String, String, i32)> {
    cached_pod(&pod_with(status)).unwrap().problem.map(|p| (p.reason, p.message, p.restarts))
}

fn found(reason: &str, message: &str, restarts: i32) -> Option<(String, String, i32)> {
    Some((reason.to_owned(), message.to_owned(), restarts))
}

#[test]
fn a_replica_set_is_read_in_full() {
    let kept = cached_replica_set(&replica_set_of("u-digits"), &FieldSets::default()).unwrap();
    let view = kept.view;
    assert_eq!(
        (view.name.as_str(), view.revision.as_str(), view.version.as_str()),
        ("digits-aaaa", "aaaa", "v1")
    );
    assert_eq!((view.desired, view.current, view.ready, view.available), (4, 3, 2, 1));
    assert!(!view.is_observed, "the controller has seen generation 2 of 3");
    assert_eq!(view.created_at, "2026-01-02T03:04:05Z".parse().unwrap());
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

/// The status of a pod that Kubernetes starts again and again, by how its container ended last.
fn crash_looping(restarts: i32, ended: &str) -> String {
    format!(
        "
  containerStatuses:
  - name: server
    image: i
    imageID: i
    ready: false
    restartCount: {restarts}
    state: {{waiting: {{reason: CrashLoopBackOff, message: back-off 40s restarting failed container}}}}
    lastState: {{terminated: {{{ended}}}}}
"
    )
}

#[test]
fn the_runtimes_own_word_wins_over_back_off() {
    let message = r#"{"reason":"ModelNotFound","message":"404","permanent":true}"#;
    let status = crash_looping(3, &format!("exitCode: 1, reason: Error, message: '{message}'"));
    assert_eq!(problem_of(&status), found("CrashLoopBackOff", message, 3));
}

#[test]
fn a_container_that_runs_again_after_a_crash_still_counts() {
    let status = "
  containerStatuses:
  - {name: r, image: i, imageID: i, ready: false, restartCount: 1, state: {running: {}}, lastState: {terminated: {exitCode: 137, reason: OOMKilled}}}
";
    assert_eq!(
        problem_of(status),
        found("OOMKilled", "it needs more than its memory limit (exit code 137)", 1)
    );
}

/// A log may hold anything, and a ModelDeployment is read by more people.
#[test]
fn of_the_end_of_a_log_one_line_is_told_and_no_more() {
    let told = |log: &str| {
        let status = crash_looping(
            4,
            &format!("exitCode: 1, reason: Error, message: {}", serde_json::json!(log)),
        );
        problem_of(&status).unwrap().1
    };
    assert_eq!(
        told("token=hunter2\nconnecting\n\u{1b}[31mError: no such table\u{7}\n\n"),
        "[31mError: no such table"
    );
    assert_eq!(told(&"x".repeat(5000)).len(), 200);
    let log = "{\"level\":\"INFO\",\"token\":\"hunter2\"}\n{\"level\":\"ERROR\",\"message\":\"ending\"}\n";
    assert_eq!(
        told(log),
        "{\"level\":\"ERROR\",\"message\":\"ending\"}",
        "a log in JSON is one, too"
    );
}

/// The kubelet gives the end of the log as the message of a container that said nothing else.
#[test]
fn a_container_that_runs_out_of_memory_again_and_again_is_told_as_such() {
    let status = crash_looping(4, "exitCode: 137, reason: OOMKilled, message: 'listening'");
    assert_eq!(
        problem_of(&status),
        found("OOMKilled", "it needs more than its memory limit (exit code 137)", 4)
    );
}

#[test]
fn images_init_containers_and_the_scheduler_speak() {
    let image = "
  containerStatuses:
  - {name: r, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: ImagePullBackOff, message: no such image}}}
";
    assert_eq!(problem_of(image), found("ImagePullBackOff", "no such image", 0));
    let init = "
  initContainerStatuses:
  - {name: fetch, image: i, imageID: i, ready: false, restartCount: 2, state: {terminated: {exitCode: 2, reason: Error, message: disk full}}}
  containerStatuses:
  - {name: r, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: PodInitializing}}}
";
    assert_eq!(problem_of(init), found("Error", "disk full", 2));
    let unscheduled = "
  phase: Pending
  conditions:
  - {type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/3 nodes are available}
";
    assert_eq!(problem_of(unscheduled), found("Unschedulable", "0/3 nodes are available", 0));
    let evicted = "
  phase: Failed
  reason: Evicted
  message: low on memory
";
    assert_eq!(problem_of(evicted), found("Evicted", "low on memory", 0));
}

#[test]
fn a_pod_that_starts_or_serves_has_no_problem() {
    let starting = "
  containerStatuses:
  - {name: r, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: ContainerCreating}}}
";
    assert_eq!(problem_of(starting), None);
    let recovered = "
  conditions: [{type: Ready, status: 'True'}]
  containerStatuses:
  - {name: r, image: i, imageID: i, ready: true, restartCount: 5, state: {running: {}}, lastState: {terminated: {exitCode: 1}}}
";
    assert_eq!(problem_of(recovered), None);
    let done = "
  containerStatuses:
  - {name: r, image: i, imageID: i, ready: false, restartCount: 0, state: {terminated: {exitCode: 0, reason: Completed}}}
";
    assert_eq!(problem_of(done), None);
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

/// A namespace with a ModelDeployment, and the gateway that the operator made there: Deployment
/// `slipway-gateway`, of which `u-set` is a ReplicaSet.
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
    let own = crate::own_writes::OwnWrites::default();
    let guarded: crate::model_watch::GuardedModel =
        serde_json::from_value(serde_json::to_value(model()).unwrap()).unwrap();
    views
        .models
        .apply_event(Event::Apply(guarded), |o| crate::model_watch::fingerprint_model(o, &own));
    views
}

/// Seen: pods of another Deployment with the labels of a gateway were called, blocked
/// confirmations, and could report a brake.
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
fn a_gateway_pod_that_has_ended_has_no_address() {
    let kept = |phase: &str| {
        cached_pod(&gateway_pod("gw", &format!("status: {{podIP: 10.0.0.1, phase: {phase}}}")))
            .unwrap()
    };
    assert_eq!(kept("Running").ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(kept("Failed").ip, None);
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
    assert_eq!(observed.services.get("digits"), Some(&expected));
    assert_eq!(observed.gateway.deployment, None);
}

#[test]
fn what_a_pod_has_fetched_is_read_from_its_first_step() {
    let hex = "a".repeat(64);
    let told = |message: &str, exit: i32, step: &str| {
        let status = format!(
            "  initContainerStatuses:
  - name: {step}
    image: i
    imageID: i
    ready: true
    restartCount: 0
    state: {{terminated: {{exitCode: {exit}, message: '{message}'}}}}
"
        );
        cached_pod(&pod_with(&status)).unwrap().fetched.map(|it| (it.revision, it.pod, it.digest))
    };
    let message = format!(r#"{{"digest":"sha256:{hex}","bytes":7,"files":1}}"#);
    let want = Some(("aaaa".to_owned(), "digits-aaaa-x".to_owned(), format!("sha256:{hex}")));
    assert_eq!(told(&message, 0, "fetch"), want);
    assert_eq!(told(&message, 1, "fetch"), None, "it failed");
    assert_eq!(told(&message, 0, "redis"), None, "another container");
    for forged in [
        "",
        "{}",
        "sha256:00",
        r#"{"digest":"sha256:00"}"#,
        &message.replace('a', "A"),
        &message.replace(&hex, "$(X)"),
    ] {
        assert_eq!(told(forged, 0, "fetch"), None, "{forged}");
    }
}

#[test]
fn the_annotation_tells_what_is_known_of_the_model() {
    let digest = |annotation: &str| {
        let mut set = replica_set_of("u-digits");
        if !annotation.is_empty() {
            let value = annotation.trim_matches('"').to_owned();
            set.metadata
                .annotations
                .get_or_insert_default()
                .insert(labels::MODEL_DIGEST.into(), value);
        }
        cached_replica_set(&set, &FieldSets::default()).unwrap().view.digest
    };
    assert_eq!(digest(""), ModelDigest::Unreported);
    assert_eq!(digest("\"\""), ModelDigest::Pending);
    assert_eq!(digest("sha256:00"), ModelDigest::Pinned("sha256:00".into()));
}
