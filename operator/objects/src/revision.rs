//! Revisions: their hash, and the names of their objects.

use serde_json::json;
use sha2::{Digest, Sha256};
use slipway_crds::v1alpha1::ModelDeploymentSpec;

use crate::canonical_json::canonical_json;

/// Prefix of the hashed content. A change of the covered content would change this prefix and roll
/// out every ModelDeployment again, so neither may change.
const VERSION: &str = "slipway.dev/revision/v3\n";

/// Number of hex digits of a revision.
const DIGITS: usize = 10;

/// The revision of a spec: a hash of only `model`, `server` and `template` as the user wrote them.
/// The last two are included only if they are set.
pub fn revision_of_spec(spec: &ModelDeploymentSpec) -> String {
    let mut content = json!({ "model": spec.model });
    if !spec.server.is_empty() {
        content["server"] = json!(spec.server);
    }
    if !spec.template.is_empty() {
        content["template"] = json!(spec.template);
    }
    let digest =
        Sha256::new().chain_update(VERSION).chain_update(canonical_json(&content)).finalize();
    hex::encode(digest).chars().take(DIGITS).collect()
}

/// The revision in the name of a Service of one revision of `name`; `None` for other names.
pub fn revision_in_name<'a>(name: &str, object: &'a str) -> Option<&'a str> {
    let revision = object.strip_prefix(name)?.strip_prefix('-')?;
    let hex = revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (revision.len() == DIGITS && hex).then_some(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: serde_json::Value) -> ModelDeploymentSpec {
        serde_json::from_value(yaml).unwrap()
    }

    #[test]
    fn only_what_makes_pods_makes_the_revision() {
        let base = spec(json!({ "model": { "uri": "http://store/a" } }));
        let same = spec(json!({
            "model": { "uri": "http://store/a" }, "template": {}, "server": {}, "replicas": 7,
            "feedback": { "outcomes": ["revenue"] }, "queue": { "maxJobs": 5, "worker": { "replicas": 5 } }, "disruptionBudget": { "maxUnavailable": 2 }, "paused": true,
            "strategy": { "type": "BlueGreen" }, "analysis": { "mode": "Disabled" }, "traffic": { "timeoutSeconds": 3 }
        }));
        let other = spec(json!({ "model": { "uri": "http://store/b" } }));
        let pods = spec(
            json!({ "model": { "uri": "http://store/a" }, "template": { "metadata": { "labels": { "a": "b" } } } }),
        );
        let cached = |ttl: i32| {
            spec(
                json!({ "model": { "uri": "http://store/a" }, "server": { "cache": { "results": { "ttlSeconds": ttl } } } }),
            )
        };
        assert_ne!(revision_of_spec(&base), revision_of_spec(&cached(60)));
        assert_ne!(revision_of_spec(&cached(60)), revision_of_spec(&cached(61)));
        let batching =
            |mode: &str| spec(json!({ "model": { "uri": "http://store/a", "batching": mode } }));
        assert_eq!(
            revision_of_spec(&base),
            revision_of_spec(&batching("Auto")),
            "the default, written out"
        );
        assert_ne!(revision_of_spec(&base), revision_of_spec(&batching("Disabled")));
        assert_eq!(revision_of_spec(&base), revision_of_spec(&same));
        assert_ne!(revision_of_spec(&base), revision_of_spec(&other));
        assert_ne!(revision_of_spec(&base), revision_of_spec(&pods));
        for more in [
            json!({ "model": { "uri": "http://store/a", "baseline": { "uri": "http://store/b" } } }),
            json!({ "model": { "uri": "http://store/a" }, "server": { "sampling": { "sink": "s3://b/p" } } }),
            json!({ "model": { "uri": "http://store/a" }, "server": { "queue": { "redis": { "url": "redis://r:6379" } } } }),
        ] {
            assert_ne!(revision_of_spec(&base), revision_of_spec(&spec(more)));
        }
    }

    #[test]
    fn the_revision_never_changes_between_versions_of_the_operator() {
        let spec = spec(
            json!({ "model": { "uri": "http://store/a", "version": "v1" }, "template": { "spec": { "containers": [{ "name": "server", "env": [{ "name": "A", "value": "1" }] }] } } }),
        );
        assert_eq!(revision_of_spec(&spec), "3f1704aa84");
    }

    #[test]
    fn revisions_are_found_in_names() {
        assert_eq!(revision_in_name("digits", "digits-0123456789"), Some("0123456789"));
        for other in [
            "digits",
            "digits-preview",
            "digits-x-0123456789",
            "digits-012345678g",
            "igits-0123456789",
        ] {
            assert_eq!(revision_in_name("digits", other), None, "{other}");
        }
    }
}
