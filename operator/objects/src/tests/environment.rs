//! The variables of pods are those that the programs read.

use std::collections::BTreeSet;

use slipway_contracts::environment::{GATEWAY, MODEL_SERVER, WORKER};

use super::*;

/// A ModelDeployment with all settings that become variables, and these caches and this queue.
fn object_with(cache: &Value, queue: &Value) -> ModelDeployment {
    let mut object = full();
    object.spec = serde_json::from_value(json!({
        "model": {
            "uri": "http://store/m.onnx", "batching": "Disabled",
            "baseline": {"uri": "http://store/b.json"},
        },
        "server": {
            "sampling": {"rate": "1%", "sink": "s3://b/p", "redactInputs": ["email"]},
            "cache": cache, "queue": queue,
        },
        "queue": {"callbacks": {
            "allow": ["hooks.example.org"],
            "signingKeySecretKeyRef": {"name": "callbacks", "key": "hmac"},
        }},
    }))
    .unwrap();
    object
}

fn names(pods: impl IntoIterator<Item = PodSpec>) -> BTreeSet<String> {
    let containers =
        |pod: PodSpec| pod.containers.into_iter().chain(pod.init_containers.into_iter().flatten());
    let variables = pods.into_iter().flat_map(containers).flat_map(|it| it.env.unwrap_or_default());
    variables.map(|variable| variable.name).collect()
}

#[test]
fn pods_get_the_variables_that_their_programs_read() {
    let all = json!({
        "results": {"bypass": "Never", "hotKeys": 100},
        "features": {"source": {"url": "http://features/{entity}"}},
        "redis": {"url": "redis://redis:6379"},
    });
    let objects = [
        full(),
        minimal(),
        object_with(&all, &json!({"redis": {"url": "redis://redis:6379"}})),
        object_with(
            &json!({"results": {}, "sidecar": {}}),
            &json!({"nats": {"url": "nats://nats:4222"}}),
        ),
    ];
    let listed = |lists: &[&[&str]]| -> BTreeSet<String> {
        lists.iter().flat_map(|list| list.iter().map(|name| (*name).to_owned())).collect()
    };
    let mut server = BTreeSet::new();
    for object in &objects {
        let mut pods = pods(object).into_iter();
        let mut of_server = names(pods.next());
        // The user's own variable of the example.
        of_server.remove("AWS_REGION");
        server.extend(of_server);
        assert_eq!(names(pods.next()), listed(&[&GATEWAY]));
    }
    assert_eq!(server, listed(&[&MODEL_SERVER]));
    let mut worker: BTreeSet<_> =
        objects.iter().flat_map(|it| names(pods(it).into_iter().skip(2))).collect();
    worker.remove("AWS_REGION");
    assert_eq!(worker, listed(&[&MODEL_SERVER, &WORKER]));
}
