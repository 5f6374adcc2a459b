use slipway_testkit::replica_set_of;

use super::*;

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
