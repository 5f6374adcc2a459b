//! Writes that the watch has not reported yet.

use std::time::{Duration, Instant};

use slipway_cluster_views::ClusterViews;

use crate::apply::expectation::{EXPECTATION_TIMEOUT, WriteExpectation};
use crate::reconcile::memory::object::ObjectMemories;

/// Planning waits for these writes, so that no action is executed twice.
impl ObjectMemories {
    /// Records a write.
    pub fn expect_write(&self, uid: &str, expectation: WriteExpectation, now: Instant) {
        let mut all = self.lock();
        let memory = all.entry(uid.to_owned()).or_default();
        memory.expectations.push((expectation, now + EXPECTATION_TIMEOUT));
    }

    /// The longest remaining wait for missing writes; `None` when the caches contain all of them or
    /// the time limit has passed.
    pub fn remaining_wait(
        &self,
        uid: &str,
        views: &ClusterViews,
        now: Instant,
    ) -> Option<Duration> {
        let mut all = self.lock();
        let open = &mut all.get_mut(uid)?.expectations;
        open.retain(|(expectation, until)| *until > now && !expectation.is_met(views));
        open.iter().map(|(_, until)| until.duration_since(now)).max()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use slipway_cluster_views::{ObjectOwner, object_view};
    use slipway_objects::ManagedKind;

    use super::*;
    use crate::apply::expectation::AwaitedState;

    fn service(version: u64) -> Service {
        serde_json::from_value(json!({"metadata": {
            "name": "m", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string(),
            "labels": {"ml.slipway.dev/modeldeployment": "m"}
        }}))
        .unwrap()
    }

    fn put(views: &ClusterViews, event: Event<Service>) {
        views.services.apply_event(event, |s| {
            Some((ObjectOwner::from_labels(s)?, object_view(s, &Default::default())?))
        });
    }

    fn expectation(awaited: AwaitedState) -> WriteExpectation {
        WriteExpectation {
            child: ManagedKind::Service,
            owner: ObjectOwner::model("ns", "m"),
            name: "m".into(),
            awaited,
        }
    }

    #[test]
    fn a_plan_waits_for_its_own_writes_and_not_for_ever() {
        let (views, expectations, now) =
            (ClusterViews::default(), ObjectMemories::default(), Instant::now());
        expectations.expect_write("x", expectation(AwaitedState::Version(7)), now);
        assert_eq!(expectations.remaining_wait("x", &views, now), Some(EXPECTATION_TIMEOUT));
        put(&views, Event::Apply(service(6)));
        assert!(
            expectations.remaining_wait("x", &views, now).is_some(),
            "still the version before"
        );
        put(&views, Event::Apply(service(7)));
        assert_eq!(expectations.remaining_wait("x", &views, now), None);
        expectations.expect_write("x", expectation(AwaitedState::Version(99)), now);
        assert_eq!(
            expectations.remaining_wait("x", &views, now + EXPECTATION_TIMEOUT),
            None,
            "patience is over"
        );
    }

    #[test]
    fn a_deleted_object_is_awaited_to_go() {
        let (views, expectations, now) =
            (ClusterViews::default(), ObjectMemories::default(), Instant::now());
        put(&views, Event::Apply(service(1)));
        expectations.expect_write("x", expectation(AwaitedState::Deleted("u".into())), now);
        assert!(expectations.remaining_wait("x", &views, now).is_some());
        put(&views, Event::Delete(service(2)));
        assert_eq!(expectations.remaining_wait("x", &views, now), None);
    }
}
