use std::time::Duration;

use http::{HeaderName, HeaderValue};
use kube::core::error_boundary::InvalidObject;
use serde_json::{Value, json};
use slipway_crds::routing::RoutingClaims;
use slipway_gateway_policy::config::{
    ArmRole, BrakeConfig, PodSettings, RoutingSnapshot, ShieldConfig, TrafficWeights,
    WeightedBackend,
};

use super::*;

fn guard(value: Value) -> DeserializeGuard<RoutedModelDeployment> {
    serde_json::from_value(value).unwrap()
}

fn digits(traffic: Value, status: Value) -> Value {
    json!({
        "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {
            "name": "digits", "namespace": "default", "uid": "1-2-3", "creationTimestamp": "2026-01-02T00:00:00Z",
        },
        "spec": {"model": {"uri": "file:///models/digits", "name": "digits-model"}, "traffic": traffic},
        "status": status,
    })
}

fn slice(labels: Value, created: &str, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "s", "labels": labels, "creationTimestamp": created},
        "ports": [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}],
        "endpoints": endpoints,
    }))
    .unwrap()
}

impl ResourceConverter {
    /// The routing snapshot for exactly these objects.
    fn snapshot<'a>(
        &mut self,
        models: impl IntoIterator<Item = &'a DeserializeGuard<RoutedModelDeployment>>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> RoutingSnapshot {
        let models: Vec<_> = models.into_iter().cloned().collect();
        let mut slices: Vec<_> = slices.into_iter().cloned().collect();
        for (number, slice) in slices.iter_mut().enumerate() {
            slice.metadata.name = Some(format!("slice-{number}"));
        }
        self.replace_slices(&slices);
        self.replace_models(&models);
        let mut snapshot = RoutingSnapshot::default();
        for name in self.models.keys() {
            snapshot.models.insert(name.clone(), self.current(name).unwrap().0.clone());
        }
        for name in self.revisions.keys() {
            let endpoints = self.endpoints(name).into_iter();
            snapshot
                .endpoints
                .extend(endpoints.map(|(revision, group)| ((name.clone(), revision), group)));
        }
        snapshot
    }
}

fn of_revision(revision: &str) -> Value {
    json!({"ml.slipway.dev/modeldeployment": "digits", "ml.slipway.dev/revision": revision})
}

fn addrs(list: &[&str]) -> std::collections::BTreeSet<SocketAddr> {
    list.iter().map(|addr| addr.parse().unwrap()).collect()
}

#[test]
fn everything_that_a_user_and_the_operator_wrote_arrives() {
    let traffic = json!({
        "timeoutSeconds": 7, "stickiness": {"header": "X-User-Id"}, "hosts": ["digits.example.org", "other.default"],
        "shield": {"mode": "Disabled", "candidateTimeoutMilliseconds": 250},
        "brake": {"minFailures": 3, "windowRequests": 20, "failureRate": "20%"},
    });
    let status = json!({
        "stable": {"revision": "aaa"},
        "traffic": {"generation": 12, "previewRevision": "bbb", "backends": [
            {"revision": "aaa", "role": "Stable", "weight": "95%"},
            {"revision": "bbb", "role": "Candidate", "weight": "5%"},
        ]},
    });
    let snapshot = ResourceConverter::default().snapshot([&guard(digits(traffic, status))], []);
    let backend = |revision: &str, role, permille| WeightedBackend {
        revision: revision.into(),
        role,
        permille,
    };
    let expected = ModelConfig {
        name: "digits".into(),
        uid: "1-2-3".into(),
        created: "2026-01-02T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second(),
        claims: RoutingClaims {
            hosts: ["digits.example.org".to_owned()].into(),
            model_name: "digits-model".into(),
        },
        weights: Some(TrafficWeights {
            generation: 12,
            backends: vec![
                backend("aaa", ArmRole::Stable, 950),
                backend("bbb", ArmRole::Candidate, 50),
            ],
            preview: Some("bbb".into()),
        }),
        stable: Some("aaa".into()),
        timeout: Duration::from_secs(7),
        max_request: 16 << 20,
        scaled_to_zero: false,
        caching: false,
        sticky_header: Some(HeaderName::from_static("x-user-id")),
        replay: true,
        shield: ShieldConfig {
            enabled: false,
            candidate_timeout: Some(Duration::from_millis(250)),
        },
        brake: BrakeConfig {
            min_failures: 3,
            window: 20,
            failure_millionths: 200_000,
            ..BrakeConfig::DEFAULT
        },
        pod_settings: PodSettings::default(),
        outcomes: Vec::new(),
        rollout: String::new(),
        reveals_revision: false,
    };
    assert_eq!(snapshot.models["digits"], expected);
}

#[test]
fn whether_a_prediction_may_run_twice_is_read() {
    let replay = |traffic| {
        ResourceConverter::default().snapshot([&guard(digits(traffic, json!(null)))], []).models["digits"].replay
    };
    assert!(
        replay(json!({}))
            && replay(json!({"replay": "Enabled"}))
            && !replay(json!({"replay": "Disabled"}))
    );
}

#[test]
fn pods_that_keep_answers_are_known() {
    let caching = |cache: Value| {
        let mut object = digits(json!({}), json!(null));
        object["spec"]["server"] = json!({"cache": cache});
        ResourceConverter::default().snapshot([&guard(object)], []).models["digits"].caching
    };
    assert!(caching(json!({"results": {}})));
    assert!(!caching(json!({"results": {"mode": "Disabled"}})) && !caching(json!({})));
}

#[test]
fn pods_are_told_what_takes_effect_without_a_rollout() {
    let told = |spec: Value| {
        let mut object = digits(json!({}), json!(null));
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        ResourceConverter::default().snapshot([&guard(object)], []).models["digits"]
            .pod_settings
            .clone()
    };
    let value = |text: &'static str| Some(HeaderValue::from_static(text));
    assert_eq!(told(json!({})), PodSettings::default());
    let server = json!({"queue": {"redis": {"url": "redis://r:6379"}}});
    let queued =
        told(json!({"server": server, "feedback": {"outcomes": ["conversion", "revenue"]}}));
    let expected = PodSettings { max_jobs: value("10000"), callback_allow: value("") };
    assert_eq!(queued, expected);
    let bounds = json!({"maxJobs": 7, "callbacks": {"allow": ["*", "10.0.0.0/8"]}});
    let bounded = told(json!({"server": server, "queue": bounds}));
    assert_eq!((bounded.max_jobs, bounded.callback_allow), (value("7"), value("*,10.0.0.0/8")));
}

#[test]
fn defaults_are_those_of_the_api() {
    let snapshot =
        ResourceConverter::default().snapshot([&guard(digits(json!({}), json!(null)))], []);
    let config = &snapshot.models["digits"];
    assert_eq!((config.timeout, config.weights.as_ref()), (Duration::from_secs(30), None));
    assert_eq!(config.shield, ShieldConfig { enabled: true, candidate_timeout: None });
    assert_eq!(config.brake, BrakeConfig::DEFAULT);
}

/// An older gateway with a newer operator.
#[test]
fn weights_take_effect_whatever_else_is_not_understood() {
    let weights = |generation: i64, percent: u32| {
        json!({
            "stable": {"revision": "aaa", "colour": 1}, "mood": [], "conditions": "none",
            "rollout": {"stage": "Shadowing", "startTime": 7},
            "traffic": {"generation": generation, "more": {}, "backends": [
                {"revision": "aaa", "role": "Stable", "weight": 100 - percent},
                {"revision": "bbb", "role": "Shadow", "weight": percent, "mirror": true},
            ]},
        })
    };
    let mut converter = ResourceConverter::default();
    let mut model = |traffic: Value, status: Value| {
        let mut object = digits(traffic, status);
        object["spec"]["analysis"] = json!({"gates": [{"type": "Disagreement"}], "mode": 3});
        converter.snapshot([&guard(object)], []).models["digits"].clone()
    };
    let first = model(json!({"timeoutSeconds": 7, "shield": {"mode": "Half"}}), weights(1, 5));
    assert_eq!((first.timeout, first.shield.enabled), (Duration::from_secs(7), true));
    let backends = first.weights.clone().unwrap().backends;
    assert_eq!((backends[1].role, backends[1].permille), (ArmRole::Candidate, 50));
    // A spec with a value of a new format: the last spec stays, and an abort still takes effect.
    let aborted = model(json!({"timeoutSeconds": "soon"}), weights(2, 0));
    assert_eq!(aborted.weights.as_ref().unwrap().generation, 2);
    assert_eq!(ModelConfig { weights: first.weights.clone(), ..aborted }, first);
    // Weights of a new format: the last ones stay, and the spec takes effect.
    let later = model(
        json!({"timeoutSeconds": 9}),
        json!({"traffic": {"generation": 3, "backends": [
            {"revision": "aaa", "role": "Stable", "weight": "most"},
        ]}}),
    );
    assert_eq!((later.timeout, later.weights.unwrap().generation), (Duration::from_secs(9), 2));
}

#[test]
fn a_gateway_that_has_seen_no_other_spec_takes_what_it_understands_of_one() {
    let traffic = json!({"timeoutSeconds": "soon", "hosts": ["digits.example.org"], "brake": {"minFailures": 3}});
    let mut converter = ResourceConverter::default();
    let config =
        converter.snapshot([&guard(digits(traffic, json!(null)))], []).models["digits"].clone();
    assert_eq!((config.timeout, config.brake.min_failures), (Duration::from_secs(30), 3));
    assert_eq!(config.claims.hosts.len(), 1);
    assert_eq!(converter.snapshot([], []), RoutingSnapshot::default());
}

#[test]
fn a_gateway_that_can_read_nothing_of_one_knows_its_name_and_its_pods() {
    let read = guard(digits(json!({"timeoutSeconds": 7}), json!(null)));
    let error = InvalidObject {
        error: "another form".into(),
        metadata: read.0.as_ref().unwrap().metadata.clone(),
    };
    let pods =
        slice(of_revision("aaa"), "2026-01-01T00:00:00Z", json!([{"addresses": ["10.0.0.1"]}]));
    let mut converter = ResourceConverter::default();
    let snapshot = converter.snapshot([&DeserializeGuard(Err(error.clone()))], [&pods]);
    let config = &snapshot.models["digits"];
    assert_eq!((config.uid.as_str(), config.timeout), ("1-2-3", Duration::from_secs(30)));
    assert_eq!(
        (config.weights.as_ref(), snapshot.endpoints.len()),
        (None, 1),
        "the table sends all to the pods that are ready"
    );
    converter.snapshot([&read], []);
    let snapshot = converter.snapshot([&DeserializeGuard(Err(error))], []);
    assert_eq!(snapshot.models["digits"].timeout, Duration::from_secs(7), "what is known stays");
}

#[test]
fn a_deleted_modeldeployment_serves_on_while_its_endpoints_are_there() {
    let mut converter = ResourceConverter::default();
    let model = guard(digits(json!({"timeoutSeconds": 7}), json!(null)));
    let pods =
        slice(of_revision("aaa"), "2026-01-01T00:00:00Z", json!([{"addresses": ["10.0.0.1"]}]));
    let before = converter.snapshot([&model], [&pods]);
    for _ in 0..2 {
        let left = converter.snapshot([], [&pods]);
        assert_eq!(left.models["digits"], before.models["digits"], "its children were left");
    }
    let mut again = digits(json!({"timeoutSeconds": 8}), json!(null));
    again["metadata"]["uid"] = json!("another");
    let made = converter.snapshot([&guard(again)], [&pods]);
    assert_eq!(made.models["digits"].uid, "another");
    assert!(converter.snapshot([], []).models.is_empty(), "and goes with them");
}

#[test]
fn a_pod_of_both_families_counts_once() {
    let pod = |address: &str, uid: &str, ready: bool| {
        let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
        json!({"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": uid, "uid": uid}})
    };
    let v4 = json!([pod("10.0.0.1", "a", true), pod("10.0.0.2", "b", false)]);
    // Pod `b` terminates, but this slice does not show it yet; `c` has only this address.
    let v6 =
        json!([pod("fd00::1", "a", true), pod("fd00::2", "b", true), pod("fd00::3", "c", true)]);
    let [v4, v6] = [v4, v6].map(|pods| slice(of_revision("one"), "2026-01-02T00:00:00Z", pods));
    for slices in [[&v4, &v6], [&v6, &v4]] {
        let snapshot = ResourceConverter::default().snapshot([], slices);
        let group = &snapshot.endpoints[&("digits".to_owned(), "one".to_owned())];
        assert_eq!(group.ready, addrs(&["10.0.0.1:8080", "[fd00::3]:8080"]));
        assert_eq!(group.draining, addrs(&["10.0.0.2:8080"]));
    }
    let snapshot = ResourceConverter::default().snapshot([], [&v6]);
    assert_eq!(snapshot.endpoints[&("digits".to_owned(), "one".to_owned())].ready.len(), 3);
}

#[test]
fn endpoints_are_grouped_by_revision_and_state() {
    let slices = [
        slice(
            of_revision("aaa"),
            "2026-01-02T00:00:00Z",
            json!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.0.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ]),
        ),
        slice(
            of_revision("aaa"),
            "2026-01-01T00:00:00Z",
            json!([{"addresses": ["10.0.0.5"], "conditions": {"ready": true}}]),
        ),
        slice(
            json!({"ml.slipway.dev/modeldeployment": "digits"}),
            "2026-01-01T00:00:00Z",
            json!([{"addresses": ["10.9.9.9"]}]),
        ),
    ];
    let groups = ResourceConverter::default().snapshot([], &slices).endpoints;
    assert_eq!(groups.len(), 1);
    let group = &groups[&("digits".to_owned(), "aaa".to_owned())];
    assert_eq!(group.ready, addrs(&["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.5:8080"]));
    assert_eq!(group.draining, addrs(&["10.0.0.3:8080"]));
    assert_eq!(
        group.created,
        "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second()
    );
}
