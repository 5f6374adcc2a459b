//! Updates of gateways over time: how many run at once, and what stops them.

use super::*;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(second: i64) -> Timestamp {
    START + SignedDuration::from_secs(second)
}

fn old(namespace: &str, models: usize) -> NamespaceGateway {
    NamespaceGateway {
        namespace: namespace.into(),
        models,
        allowed_at: None,
        updated_at: None,
        rolled_out: true,
        broken_before: false,
        created_with_version: false,
        requests_before: ClientRequests::default(),
        requests_after: ClientRequests::default(),
    }
}

fn allowed(decision: &UpdateDecision, gateways: &[NamespaceGateway]) -> Vec<String> {
    let behind =
        gateways.iter().filter(|it| it.updated_at.is_none()).map(|it| it.namespace.clone());
    behind.filter(|it| decision.updates[it] == UpdatePermission::Allowed).collect()
}

/// Simulates some seconds: gateways that may be updated are, and their pods are ready 10 s later.
/// Returns the number of updated gateways at each second.
fn roll(
    gateways: &mut [NamespaceGateway],
    seconds: i64,
    spoil: impl Fn(&mut NamespaceGateway),
) -> Vec<usize> {
    let mut counts = Vec::new();
    for second in 0..seconds {
        let decision = decide_updates(gateways, UpdateMode::Gradual, at(second));
        for name in allowed(&decision, gateways) {
            let gateway = gateways.iter_mut().find(|it| it.namespace == name).unwrap();
            (gateway.updated_at, gateway.rolled_out) = (Some(at(second)), false);
        }
        for gateway in gateways
            .iter_mut()
            .filter(|it| it.age(at(second)) >= Some(SignedDuration::from_secs(10)))
        {
            gateway.rolled_out = true;
            spoil(gateway);
        }
        counts.push(gateways.iter().filter(|it| it.updated_at.is_some()).count());
    }
    counts
}

#[test]
fn few_at_first_then_as_many_as_were_good() {
    let mut gateways: Vec<_> = (0..40).map(|n| old(&format!("ns-{n:02}"), 40 - n)).collect();
    let counts = roll(&mut gateways, 7 * OBSERVATION_SECONDS, |_| {});
    let look = OBSERVATION_SECONDS as usize;
    assert_eq!(
        (counts[0], counts[look - 1], counts[look], counts[2 * look]),
        (1, 1, 2, 4),
        "{counts:?}"
    );
    assert_eq!(counts.last(), Some(&40));
    assert!(counts.windows(2).all(|pair| pair[1] - pair[0] <= pair[0].max(1)), "{counts:?}");
    // The gateway with the fewest models was updated first.
    assert_eq!(gateways[39].updated_at, Some(at(0)));
}

#[test]
fn a_bad_version_stays_where_it_is() {
    let failing = |gateway: &mut NamespaceGateway| {
        gateway.requests_after = ClientRequests { ended: 1000, failed: 50 }
    };
    let mut gateways: Vec<_> = (0..40).map(|n| old(&format!("ns-{n:02}"), 1)).collect();
    assert_eq!(roll(&mut gateways, 10 * OBSERVATION_SECONDS, failing).last(), Some(&1));
    let decision = decide_updates(&gateways, UpdateMode::Gradual, at(2000));
    assert_eq!(decision.problems["ns-00"], "5.0 % of its requests fail, 0.0 % did before");
    let said = |it: &UpdatePermission| matches!(it, UpdatePermission::Stopped(why) if !why.contains("ns-"));
    assert_eq!(
        decision.updates.values().filter(|it| said(it)).count(),
        39,
        "no namespace is named to another"
    );
    // An administrator can override this.
    let decision = decide_updates(&gateways, UpdateMode::Immediate, at(2000));
    assert_eq!(allowed(&decision, &gateways).len(), 39);
    // The update continues when they have recovered.
    gateways[0].requests_after = ClientRequests { ended: 2000, failed: 10 };
    assert_eq!(
        allowed(&decide_updates(&gateways, UpdateMode::Gradual, at(2000)), &gateways),
        ["ns-01"]
    );
}

#[test]
fn what_failed_before_is_not_the_versions_fault() {
    let mut bad_model = old("a", 1);
    bad_model.updated_at = Some(at(0));
    bad_model.requests_before = ClientRequests { ended: 1000, failed: 300 };
    bad_model.requests_after = ClientRequests { ended: 1000, failed: 350 };
    let gateways = [bad_model, old("b", 1)];
    assert_eq!(
        allowed(
            &decide_updates(&gateways, UpdateMode::Gradual, at(OBSERVATION_SECONDS)),
            &gateways
        ),
        ["b"]
    );
}

#[test]
fn pods_that_do_not_come_up_stop_it() {
    let mut stuck = old("a", 1);
    (stuck.updated_at, stuck.rolled_out) = (Some(at(0)), false);
    let gateways = [stuck, old("b", 1)];
    let waits = decide_updates(&gateways, UpdateMode::Gradual, at(READY_DEADLINE_SECONDS - 1));
    assert_eq!((waits.updates["b"].clone(), waits.problems.len()), (UpdatePermission::Waiting, 0));
    let stopped = decide_updates(&gateways, UpdateMode::Gradual, at(READY_DEADLINE_SECONDS));
    assert!(
        matches!(stopped.updates["b"], UpdatePermission::Stopped(_))
            && stopped.problems.contains_key("a")
    );
}

#[test]
fn the_remedy_of_a_bad_version_does_not_wait() {
    // `a` has a version whose pods do not start; the operator with the fixed version has just
    // started and has observed nothing yet.
    let mut broken = old("a", 5);
    broken.rolled_out = false;
    let mut good = old("b", 1);
    good.updated_at = Some(at(0));
    let gateways = [broken.clone(), good, old("c", 1)];
    assert_eq!(allowed(&decide_updates(&gateways, UpdateMode::Gradual, at(0)), &gateways), ["a"]);
    // A gateway that was already without pods, for other reasons, does not delay the others and is
    // not a problem of the version.
    (broken.updated_at, broken.broken_before) = (Some(at(0)), true);
    let gateways = [broken, old("c", 1)];
    let decision = decide_updates(&gateways, UpdateMode::Gradual, at(2 * READY_DEADLINE_SECONDS));
    assert_eq!((allowed(&decision, &gateways), decision.problems.len()), (vec!["c".to_owned()], 0));
}

#[test]
fn new_namespaces_hold_nobody_up() {
    let made = |place: i64| NamespaceGateway {
        created_with_version: true,
        updated_at: Some(at(place)),
        ..old(&format!("new-{place}"), 1)
    };
    let mut failing = made(1);
    failing.requests_after = ClientRequests { ended: 1000, failed: 500 };
    let mut stuck = made(2);
    stuck.rolled_out = false;
    let gateways = [made(0), failing, stuck, old("a", 1), old("b", 1)];
    let early = decide_updates(&gateways, UpdateMode::Gradual, at(3));
    assert_eq!((allowed(&early, &gateways), early.problems.len()), (vec!["a".to_owned()], 0));
    // A gateway that ran well with this version for a while speeds up the update, also if it was
    // created with this version.
    let late = decide_updates(&gateways, UpdateMode::Gradual, at(2 * READY_DEADLINE_SECONDS));
    assert_eq!((allowed(&late, &gateways).len(), late.problems.len()), (2, 0));
}

#[test]
fn one_that_cannot_be_written_keeps_nobody_waiting() {
    let refused = NamespaceGateway { allowed_at: Some(at(0)), rolled_out: false, ..old("a", 1) };
    let gateways = [refused, old("b", 1), old("c", 1)];
    assert_eq!(
        allowed(
            &decide_updates(&gateways, UpdateMode::Gradual, at(MAX_WAIT_SECONDS - 1)),
            &gateways
        ),
        ["a"]
    );
    assert_eq!(
        allowed(&decide_updates(&gateways, UpdateMode::Gradual, at(MAX_WAIT_SECONDS)), &gateways),
        ["a", "b"]
    );
}

#[test]
fn an_administrator_may_pause_it() {
    let gateways = [old("a", 1)];
    let paused = decide_updates(&gateways, UpdateMode::Paused, at(0));
    assert!(
        matches!(&paused.updates["a"], UpdatePermission::Stopped(why) if why.contains("--gateway-update"))
    );
}

#[test]
fn after_a_restart_those_that_are_updated_are_looked_at_again() {
    let mut gateways: Vec<_> = (0..10).map(|n| old(&format!("ns-{n}"), 1)).collect();
    for gateway in &mut gateways[..4] {
        gateway.updated_at = Some(at(1000));
    }
    assert!(
        allowed(&decide_updates(&gateways, UpdateMode::Gradual, at(1000)), &gateways).is_empty()
    );
    assert_eq!(
        allowed(
            &decide_updates(&gateways, UpdateMode::Gradual, at(1000 + OBSERVATION_SECONDS)),
            &gateways
        )
        .len(),
        4
    );
}
