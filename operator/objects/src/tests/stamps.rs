//! The applied hash, which shows whether an object equals what was applied last.

use super::*;

#[test]
fn stamps_are_stable_and_tell_differences() {
    for desired in all(&full()) {
        let hash = applied_hash(&desired);
        assert_eq!(json_of(&desired)["metadata"]["annotations"][labels::APPLIED], json!(hash));
        assert_eq!(
            applied_hash(&with_applied_hash(desired.clone())),
            hash,
            "stamping again changes nothing"
        );
        assert_eq!(hash.len(), 16);
    }
    let mut other = full();
    other.spec.model.uri = "http://elsewhere/model.onnx".to_owned();
    let hash = |object: &ModelDeployment| {
        applied_hash(&replica_set(object, &settings(), REVISION, "v7", 3, None))
    };
    assert_ne!(hash(&full()), hash(&other));
    // The value is fixed: changing it applies every object of every ModelDeployment once more after
    // an upgrade of the operator.
    assert_eq!(applied_hash(&stable_service(&full())), PINNED);
}

const PINNED: &str = "25291598b15146b2";

#[test]
fn model_deployments_do_not_fight_over_the_gateway() {
    let (mine, mut other) = (full(), minimal());
    other.metadata.namespace = mine.metadata.namespace.clone();
    for (a, b) in
        gateway_objects(&mine, &settings()).iter().zip(&gateway_objects(&other, &settings()))
    {
        assert_eq!(applied_hash(a), applied_hash(b));
        let without_owners = |desired: &DesiredObject| {
            let mut value = json_of(desired);
            value["metadata"].as_object_mut().unwrap().remove("ownerReferences");
            value
        };
        assert_eq!(without_owners(a), without_owners(b));
        assert!(is_shared(a));
    }
    assert!(!is_shared(&disruption_budget(&mine)) && !is_shared(&stable_service(&mine)));
}
