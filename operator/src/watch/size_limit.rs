//! Rejects ModelDeployments above a size limit: they are neither cached nor planned. etcd accepts
//! 1.5 MB per object, and a few hundred such objects in one namespace would exhaust the memory of
//! the operator of the whole cluster. The child objects of a rejected one stay as they are, and its
//! status reports the problem.

use kube::ResourceExt;
use kube::core::error_boundary::InvalidObject;
use serde::Serialize;
use slipway_cluster_views::GuardedModel;
use slipway_core::text::clip_message;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

/// Limit for labels, annotations, spec and status together, in bytes as JSON. The largest of the
/// examples has 4 KiB, a full rollout history about 60 KiB; Kubernetes limits annotations alone to
/// 256 KiB. Ten thousand objects of this size would still be too many; the object quota of a
/// namespace limits their number there.
pub const MAX_OBJECT_BYTES: usize = 256 << 10;
/// Prefix of the error message of such an object; it distinguishes it from an object that cannot be
/// deserialized.
const PROBLEM_PREFIX: &str = "labels, annotations, spec and status have";

/// Replaces an object that is too large by an error, and keeps only identifying metadata of an
/// object that cannot be deserialized.
pub fn reject_too_large(object: &mut GuardedModel) {
    if let Ok(valid) = &object.0
        && let Some(error) = size_problem(valid)
    {
        object.0 = Err(InvalidObject { error, metadata: valid.metadata.clone() });
    }
    if let Err(invalid) = &mut object.0 {
        let metadata = &mut invalid.metadata;
        (metadata.annotations, metadata.labels, metadata.managed_fields) = (None, None, None);
        // The error text may repeat the unparsable content, so it is clipped.
        invalid.error = clip_message(&invalid.error);
    }
}

/// Whether an object cannot be planned because it is too large.
pub fn is_too_large(error: &str) -> bool {
    error.starts_with(PROBLEM_PREFIX)
}

/// The error message of an object that is too large.
pub fn size_problem(object: &ModelDeployment) -> Option<String> {
    let status = object.status.as_ref();
    let bytes = |status: Option<&ModelDeploymentStatus>| {
        json_length(&(object.labels(), object.annotations(), &object.spec, status))
    };
    if bytes(status) <= MAX_OBJECT_BYTES {
        return None;
    }
    // The message reports the size of the status and is stored in it, so its own fields must not
    // count.
    let quiet = status.map(|status| ModelDeploymentStatus {
        conditions: Vec::new(),
        state: String::new(),
        message: String::new(),
        ..status.clone()
    });
    let parts = [
        json_length(&(object.labels(), object.annotations())),
        json_length(&object.spec),
        json_length(&quiet),
    ];
    let [meta, spec, status] = parts.map(|bytes| bytes.div_ceil(1024));
    let most = MAX_OBJECT_BYTES >> 10;
    Some(format!(
        "{PROBLEM_PREFIX} {} KiB as JSON, and {most} KiB is the most (metadata {meta}, spec {spec}, status {status}): \
         move large values of spec.template into a ConfigMap or Secret, and large annotations elsewhere; until then everything stays as it is",
        meta + spec + status
    ))
}

/// Length as JSON, without building the text.
fn json_length(value: &impl Serialize) -> usize {
    struct ByteCounter(usize);
    impl std::io::Write for ByteCounter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = ByteCounter(0);
    // The types in use always serialize.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use slipway_core::stalled_status;
    use slipway_crds::conditions::reason::TOO_LARGE;

    use super::*;

    fn object(variable: usize) -> GuardedModel {
        serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": "ns", "uid": "u", "annotations": {"a": "b"}},
            "spec": {
                "model": {"uri": "https://store/m"},
                "template": {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": "x".repeat(variable)}]}]}}
            },
            "status": {"replicas": 1, "selector": ""}
        }))
        .unwrap()
    }

    #[test]
    fn of_what_is_too_large_only_its_name_is_kept() {
        let mut good = object(200 << 10);
        reject_too_large(&mut good);
        assert!(good.0.is_ok());
        let mut large = object(300 << 10);
        reject_too_large(&mut large);
        let invalid = large.0.unwrap_err();
        assert!(
            is_too_large(&invalid.error) && invalid.error.contains("spec 301"),
            "{}",
            invalid.error
        );
        assert!(invalid.error.contains("ConfigMap"), "it names the remedy: {}", invalid.error);
        assert_eq!(
            (invalid.metadata.name.as_deref(), invalid.metadata.annotations),
            (Some("m"), None)
        );
    }

    #[test]
    fn what_is_said_of_it_does_not_change_by_being_said() {
        let large = object(300 << 10).0.unwrap();
        let error = size_problem(&large).unwrap();
        let stored = large.status.clone().unwrap();
        let said = stalled_status(stored, TOO_LARGE, &error, Some(2), Timestamp::UNIX_EPOCH);
        let told = ModelDeployment { status: Some(said.clone()), ..large };
        assert_eq!(size_problem(&told), Some(error.clone()));
        let later = Timestamp::from_second(60).unwrap();
        assert_eq!(
            stalled_status(said.clone(), TOO_LARGE, &error, Some(2), later),
            said,
            "no second write"
        );
    }

    #[test]
    fn the_text_of_an_error_is_bounded_too() {
        let mut broken: GuardedModel = serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m"},
            "spec": {"model": {"uri": "https://store/m", "batching": "x".repeat(300 << 10)}}
        }))
        .unwrap();
        reject_too_large(&mut broken);
        let invalid = broken.0.unwrap_err();
        assert!(invalid.error.len() < 2048 && !is_too_large(&invalid.error));
    }
}
