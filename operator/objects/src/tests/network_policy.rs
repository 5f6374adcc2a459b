//! Network access to the pods.

use std::collections::BTreeSet;

use super::*;

/// The compared parts of a policy's rules: the ports, and the peers; `None` allows all.
fn rules(desired: &DesiredObject) -> Vec<(Vec<i64>, Option<Value>)> {
    let spec = json_of(desired)["spec"].clone();
    assert_eq!(
        (&spec["policyTypes"], &spec["egress"]),
        (&json!(["Ingress"]), &Value::Null),
        "what goes out is free"
    );
    let rule = |rule: &Value| {
        let ports = rule["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["port"].as_i64().unwrap())
            .collect();
        (ports, rule.get("from").cloned())
    };
    spec["ingress"].as_array().unwrap().iter().map(rule).collect()
}

/// Settings without configured peers and without a service mesh.
fn plain() -> PlanSettings {
    PlanSettings { network_policies: Some(NetworkPolicies::default()), ..settings() }
}

fn pods_with(labels: &[(&str, &str)]) -> Value {
    json!({"podSelector": {"matchLabels": labels.iter().copied().collect::<std::collections::BTreeMap<_, _>>()}})
}

fn namespace(name: &str) -> Value {
    json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}})
}

#[test]
fn the_gateways_answer_everybody_and_keep_their_private_port_to_the_namespace() {
    let policy =
        |settings: &PlanSettings| rules(&gateway_network_policy(&minimal(), settings).unwrap());
    let own = json!({"podSelector": {}});
    assert_eq!(
        policy(&plain()),
        [(vec![8080], None), (vec![8081], Some(json!([own.clone()]))), (vec![9091], None)]
    );
    let ours = pods_with(&[(labels::MANAGED_BY, labels::MANAGER)]);
    assert_eq!(
        policy(&settings()),
        [
            (vec![8080], Some(json!([ours, namespace("ingress")]))),
            (vec![8081], Some(json!([own, namespace("labels")]))),
            (vec![9091], Some(json!([namespace("slipway-system"), namespace("monitoring")]))),
            (vec![15008], None),
        ],
        "whoever is named, and those without whom it does not work"
    );
}

#[test]
fn model_servers_answer_gateways_and_workers_nobody() {
    let gateways =
        pods_with(&[(labels::COMPONENT, "gateway"), (labels::MANAGED_BY, labels::MANAGER)]);
    let policy = |settings: &PlanSettings| rules(&network_policy(&minimal(), settings).unwrap());
    assert_eq!(policy(&plain()), [(vec![8080], Some(json!([gateways]))), (vec![9090], None)]);
    let alike = pods_with(&[(labels::COMPONENT, "runtime"), (labels::MODEL_DEPLOYMENT, "digits")]);
    assert_eq!(policy(&settings())[1], (vec![9090], Some(json!([alike, namespace("monitoring")]))));
    let of_workers =
        |settings: &PlanSettings| rules(&worker_network_policy(&minimal(), settings).unwrap());
    assert_eq!(of_workers(&plain()), [(vec![9090], None)]);
    assert_eq!(of_workers(&settings())[0], (vec![9090], Some(json!([namespace("monitoring")]))));
}

/// A gateway in the host network has its node's address, which no selector matches.
#[test]
fn gateways_on_the_host_still_reach_the_models() {
    let gateway_template = serde_json::from_value(json!({"spec": {"hostNetwork": true}})).unwrap();
    let settings = PlanSettings { gateway_template, ..plain() };
    assert_eq!(rules(&network_policy(&minimal(), &settings).unwrap())[0], (vec![8080], None));
}

#[test]
fn ports_of_a_template_stay_open_in_its_revision() {
    let desired = template_network_policy(&full(), &settings(), REVISION).unwrap();
    let value = json_of(&desired);
    assert_eq!(value["spec"]["podSelector"]["matchLabels"][labels::REVISION], REVISION);
    let ports = json!([{"port": 8443, "protocol": "TCP"}, {"port": 8053, "protocol": "UDP"}]);
    assert_eq!(value["spec"]["ingress"], json!([{ "ports": ports }]));
    assert_eq!(
        template_network_policy(&minimal(), &settings(), REVISION),
        None,
        "there is nothing to open"
    );
    let beside = json!({"spec": {"containers": [{"name": "proxy", "image": "x", "ports": [{"containerPort": 8443}]}]}});
    let gateway_template = serde_json::from_value(beside).unwrap();
    let settings = PlanSettings { gateway_template, ..plain() };
    let of_gateway = rules(&gateway_network_policy(&minimal(), &settings).unwrap());
    assert_eq!(of_gateway.last(), Some(&(vec![8443], None)));
    // Declaring one of Slipway's ports does not open it.
    let ports = [8080, 8081, 9090, 9091].map(|port| json!({"containerPort": port}));
    let again = json!({"spec": {"containers": [{"name": "proxy", "image": "x", "ports": ports}]}});
    let mut object = minimal();
    object.spec.template = serde_json::from_value(again.clone()).unwrap();
    let settings =
        PlanSettings { gateway_template: serde_json::from_value(again).unwrap(), ..plain() };
    let of_revision = rules(&template_network_policy(&object, &settings, REVISION).unwrap());
    assert_eq!(of_revision, [(vec![8081, 9091], None)]);
    let of_gateway = rules(&gateway_network_policy(&object, &settings).unwrap());
    assert_eq!(of_gateway.last(), Some(&(vec![9090], None)));
}

#[test]
fn without_network_policies_there_are_none() {
    let settings = PlanSettings { network_policies: None, ..settings() };
    assert_eq!(policies_of(&full(), &settings), []);
}

/// Labels and ports of all kinds of pods that the operator builds.
fn ports() -> Vec<(Value, BTreeSet<i64>)> {
    let object = full();
    let made = [
        replica_set(&object, &settings(), REVISION, "v7", 3, None),
        worker_deployment(
            &object,
            &object.spec.queue().unwrap().1,
            &settings(),
            REVISION,
            "v7",
            "",
            None,
        ),
        gateway_deployment(&object, &settings()),
    ];
    let of = |desired: &DesiredObject| {
        let template = json_of(desired)["spec"]["template"].clone();
        let lists = ["containers", "initContainers"].map(|list| template["spec"][list].clone());
        let containers = lists.iter().filter_map(Value::as_array).flatten();
        let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
        let numbers = ports.map(|port| port["containerPort"].as_i64().unwrap()).collect();
        (template["metadata"]["labels"].clone(), numbers)
    };
    made.iter().map(of).collect()
}

/// Every new port needs a policy and a row in the documentation.
#[test]
fn every_port_has_a_policy_and_a_row_in_the_document() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ports.md");
    let document = std::fs::read_to_string(document).unwrap();
    let policies = policies_of(&full(), &settings());
    for (pod, ports) in ports() {
        assert!(ports.contains(&9090) || ports.contains(&9091), "{ports:?}");
        let selects = |policy: &&DesiredObject| {
            let selector = json_of(policy)["spec"]["podSelector"]["matchLabels"].clone();
            selector.as_object().unwrap().iter().all(|(key, value)| pod[key] == *value)
        };
        let of_pod: Vec<_> = policies.iter().filter(selects).collect();
        let named: BTreeSet<i64> =
            of_pod.iter().flat_map(|policy| rules(policy)).flat_map(|(ports, _)| ports).collect();
        let without: Vec<_> = ports.difference(&named).collect();
        assert!(without.is_empty(), "no NetworkPolicy of {pod} names the ports {without:?}");
        // The owner of the example's own containers documents their ports.
        let ours = ports.iter().filter(|port| ![8443, 8053].contains(*port));
        let untold: Vec<_> =
            ours.filter(|port| !document.contains(&format!("| {port} "))).collect();
        assert!(untold.is_empty(), "docs/ports.md does not name {untold:?}");
    }
}
