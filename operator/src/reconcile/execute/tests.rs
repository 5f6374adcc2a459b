use slipway_crds::v1alpha1::{
    RevisionRole, RevisionStatus, RolloutOutcome, TrafficBackend, TrafficStatus,
};

use super::*;

fn empty() -> ReconcilePlan {
    ReconcilePlan {
        actions: Vec::new(),
        status: ModelDeploymentStatus::default(),
        status_first: false,
        status_may_wait: false,
        events: Vec::new(),
        wake_at: None,
        evidence: None,
    }
}

#[test]
fn the_next_look_is_the_earliest_reason_for_one() {
    let now = Timestamp::now();
    let net = requeue_after(&empty(), None, now);
    assert!((RESYNC_INTERVAL.mul_f64(0.9)..=RESYNC_INTERVAL.mul_f64(1.1)).contains(&net));
    let plan = ReconcilePlan { wake_at: Some(now + Duration::from_secs(30)), ..empty() };
    assert_eq!(requeue_after(&plan, None, now), Duration::from_secs(30));
    assert_eq!(requeue_after(&plan, Some(Duration::from_secs(2)), now), Duration::from_secs(2));
    let past = ReconcilePlan { wake_at: Some(now - Duration::from_secs(5)), ..empty() };
    assert_eq!(requeue_after(&past, None, now), Duration::ZERO);
}

fn backend(revision: &str, role: RevisionRole, weight_permille: i32) -> TrafficBackend {
    TrafficBackend { revision: revision.into(), role, weight_permille }
}

#[test]
fn what_has_no_weight_drains() {
    let revision =
        |name: &str| Some(RevisionStatus { revision: name.into(), ..RevisionStatus::default() });
    let backends =
        vec![backend("a", RevisionRole::Stable, 1000), backend("b", RevisionRole::Candidate, 0)];
    let status = ModelDeploymentStatus {
        stable: revision("a"),
        candidate: revision("c"),
        traffic: Some(TrafficStatus { backends, ..TrafficStatus::default() }),
        ..ModelDeploymentStatus::default()
    };
    assert_eq!(draining_revisions(&status), BTreeSet::from(["b".to_owned(), "c".to_owned()]));
}

fn record(revision: &str, started: i64) -> RolloutRecord {
    let at = |s| {
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(s).unwrap())
    };
    RolloutRecord {
        revision: revision.into(),
        version: String::new(),
        outcome: RolloutOutcome::Promoted,
        reason: String::new(),
        message: String::new(),
        start_time: at(started),
        end_time: at(started + 1),
        steps: Vec::new(),
        commands: Vec::new(),
    }
}

#[test]
fn a_rollout_that_ended_is_counted_once() {
    let with = |history| ModelDeploymentStatus { history, ..ModelDeploymentStatus::default() };
    let (one, two) = (with(vec![record("a", 1)]), with(vec![record("a", 9), record("a", 1)]));
    assert_eq!(ended_rollouts(None, &one).len(), 1);
    assert_eq!(ended_rollouts(Some(&one), &one).len(), 0);
    assert_eq!(ended_rollouts(Some(&one), &two).len(), 1, "the same revision again");
}
