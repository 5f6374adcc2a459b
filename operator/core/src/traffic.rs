//! Weights: their form, their confirmation, and what the gateways report about them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::v1alpha1::{RevisionRole, TrafficBackend, TrafficStatus};

use crate::observed::{GatewayPod, GatewayReport, GatewayView};

/// The weight of all traffic, in thousandths.
pub const FULL_WEIGHT: i32 = 1000;

/// Seconds within which gateways confirm weights. They do so within a second or two; for a slower
/// gateway its connection to the API server or the operator's connection to it has failed.
pub const CONFIRMATION_SECONDS: i64 = 60;

/// Seconds after which a gateway that has not confirmed is named in messages.
pub const LATE_SECONDS: i64 = 10;

/// Backends that send all traffic to one revision.
pub fn stable_only(stable: &str) -> Vec<TrafficBackend> {
    vec![TrafficBackend {
        revision: stable.to_owned(),
        role: RevisionRole::Stable,
        weight_permille: FULL_WEIGHT,
    }]
}

/// Backends with `weight` thousandths for the candidate and the rest for stable. Stable stays in
/// the list at weight 0, because it answers the requests that the shield replays.
pub fn split_weights(stable: &str, candidate: &str, weight: i32) -> Vec<TrafficBackend> {
    let weight = weight.clamp(0, FULL_WEIGHT);
    vec![
        TrafficBackend {
            revision: stable.to_owned(),
            role: RevisionRole::Stable,
            weight_permille: FULL_WEIGHT - weight,
        },
        TrafficBackend {
            revision: candidate.to_owned(),
            role: RevisionRole::Candidate,
            weight_permille: weight,
        },
    ]
}

/// Whether the weights have a form that the operator would write for these two revisions.
pub fn is_well_formed(backends: &[TrafficBackend], stable: &str, candidate: Option<&str>) -> bool {
    match backends {
        [only] => {
            *only
                == TrafficBackend {
                    revision: stable.to_owned(),
                    role: RevisionRole::Stable,
                    weight_permille: FULL_WEIGHT,
                }
        }
        [first, second] => candidate.is_some_and(|candidate| {
            let [ours, theirs] =
                if first.role == RevisionRole::Stable { [first, second] } else { [second, first] };
            (0..=FULL_WEIGHT).contains(&theirs.weight_permille)
                && split_weights(stable, candidate, theirs.weight_permille)
                    == [ours.clone(), theirs.clone()]
        }),
        _ => false,
    }
}

/// The weight of a revision, in thousandths.
pub fn weight_of(traffic: &TrafficStatus, revision: &str) -> i32 {
    traffic
        .backends
        .iter()
        .find(|backend| backend.revision == revision)
        .map_or(0, |backend| backend.weight_permille)
}

/// Whether the weights include a revision, also as the target of the shield or behind the preview
/// address.
pub fn selects_revision(traffic: &TrafficStatus, revision: &str) -> bool {
    traffic.backends.iter().any(|backend| backend.revision == revision)
        || traffic.preview_revision.as_deref() == Some(revision)
}

/// Whether every gateway confirmed the newest weights.
pub fn is_confirmed(traffic: &TrafficStatus) -> bool {
    traffic.generation > 0
        && traffic.confirmed_generation == traffic.generation
        && traffic.confirmed_time.is_some()
}

/// Time at which the newest weights were confirmed.
pub fn confirmed_time(traffic: &TrafficStatus) -> Option<Timestamp> {
    let confirmed = is_confirmed(traffic);
    traffic.confirmed_time.as_ref().filter(|_| confirmed).map(|time| time.0)
}

/// Writes weights. The generation exceeds every generation that a gateway ever reported, so that no
/// report about an earlier object of this name counts as a confirmation. Returns whether the
/// weights changed.
pub fn write_weights(
    traffic: &mut TrafficStatus,
    backends: Vec<TrafficBackend>,
    preview: Option<String>,
    gateway: &GatewayView,
) -> bool {
    // The API server may return a list of type map in another order.
    let same = traffic.backends.len() == backends.len()
        && backends.iter().all(|b| traffic.backends.contains(b));
    if same && traffic.preview_revision == preview {
        return false;
    }
    traffic.backends = backends;
    traffic.preview_revision = preview;
    bump_generation(traffic, gateway);
    true
}

/// Starts a new generation with the same weights.
pub fn bump_generation(traffic: &mut TrafficStatus, gateway: &GatewayView) {
    traffic.generation = traffic.generation.max(newest_report(gateway)).max(0).saturating_add(1);
    traffic.confirmed_time = None;
    traffic.observed_candidate_share = None;
}

/// Records that all gateways confirmed.
pub fn confirm_weights(traffic: &mut TrafficStatus, at: Timestamp) {
    traffic.confirmed_generation = traffic.generation;
    traffic.confirmed_time = Some(Time(at));
}

/// The newest generation that any gateway reports.
pub fn newest_report(gateway: &GatewayView) -> i64 {
    gateway_reports(gateway).map(|report| report.generation).max().unwrap_or_default()
}

/// Whether every ready gateway applied `generation`, and at least one is ready.
pub fn all_ready_at(gateway: &GatewayView, generation: i64) -> bool {
    let (confirmed, ready) = ready_at(gateway, generation);
    ready > 0 && confirmed == ready
}

/// How many of the ready gateways applied `generation`, and how many are ready.
pub fn ready_at(gateway: &GatewayView, generation: i64) -> (usize, usize) {
    let ready: Vec<&GatewayPod> = gateway.pods.iter().filter(|pod| pod.ready).collect();
    let applied = |pod: &&&GatewayPod| {
        pod.report.as_ref().is_some_and(|report| report.generation >= generation)
    };
    (ready.iter().filter(applied).count(), ready.len())
}

/// What keeps a generation requested at `since` from being confirmed: for each gateway the start of
/// the delay and the cause. Empty if no gateway is ready, because then no requests are sent. The
/// delay of a gateway begins when the operator first tries to connect to it, so that the absence of
/// the operator does not count.
pub fn missing_confirmations(
    gateway: &GatewayView,
    generation: i64,
    since: Timestamp,
) -> Vec<(Timestamp, String)> {
    let late =
        |pod: &&GatewayPod| pod.report.as_ref().is_none_or(|report| report.generation < generation);
    let why = |pod: &GatewayPod| match (&pod.report, &pod.unreachable) {
        (Some(report), _) => {
            (since, format!("gateway {} still uses generation {}", pod.name, report.generation))
        }
        (None, Some(lost)) => {
            (since.max(lost.since), format!("gateway {} is not heard: {}", pod.name, lost.error))
        }
        (None, None) => {
            (since, format!("gateway {} says nothing of this ModelDeployment", pod.name))
        }
    };
    gateway.pods.iter().filter(|pod| pod.ready).filter(late).map(why).collect()
}

/// Whether no gateway uses older weights: all ready gateways applied `generation`, and so did
/// terminating ones that still serve connections.
pub fn is_settled(gateway: &GatewayView, generation: i64) -> bool {
    all_ready_at(gateway, generation)
        && gateway_reports(gateway).all(|report| report.generation >= generation)
}

/// Requests in flight to a revision, over all gateways.
pub fn in_flight_requests(gateway: &GatewayView, revision: &str) -> u64 {
    gateway_reports(gateway)
        .filter_map(|report| report.in_flight.get(revision))
        .fold(0, |sum, more| sum.saturating_add(*more))
}

/// The candidate's share of the requests under this generation, in thousandths; `None` without
/// requests.
pub fn observed_share(
    gateway: &GatewayView,
    traffic: &TrafficStatus,
    candidate: &str,
) -> Option<i32> {
    let (mut theirs, mut all) = (0_u64, 0_u64);
    for report in gateway_reports(gateway).filter(|report| report.generation == traffic.generation)
    {
        for (revision, count) in &report.requests {
            all = all.saturating_add(*count);
            if revision == candidate {
                theirs = theirs.saturating_add(*count);
            }
        }
    }
    let share = u128::from(theirs) * 1000 + u128::from(all) / 2;
    (all > 0).then(|| i32::try_from(share / u128::from(all)).unwrap_or(FULL_WEIGHT))
}

/// Completed requests to a revision under a generation, and the answered ones of them; `None`
/// unless every ready gateway reports them.
pub fn ended_requests(
    gateway: &GatewayView,
    generation: i64,
    revision: &str,
) -> Option<(u64, u64)> {
    let of = |counts: &BTreeMap<String, u64>| counts.get(revision).copied().unwrap_or_default();
    let mut sums = (0_u64, 0_u64);
    for pod in gateway.pods.iter().filter(|pod| pod.ready) {
        let report = pod.report.as_ref().filter(|report| report.generation == generation)?;
        let answered = of(report.answered.as_ref()?);
        let ended = of(&report.requests).saturating_sub(of(&report.in_flight));
        sums = (sums.0.saturating_add(ended), sums.1.saturating_add(answered));
    }
    Some(sums)
}

pub use slipway_crds::v1alpha1::units::permille::format_permille;

fn gateway_reports(gateway: &GatewayView) -> impl Iterator<Item = &GatewayReport> {
    gateway.pods.iter().filter_map(|pod| pod.report.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: bool, generation: Option<i64>) -> GatewayPod {
        let report =
            generation.map(|generation| GatewayReport { generation, ..GatewayReport::default() });
        GatewayPod { ready, report, ..GatewayPod::default() }
    }

    fn gateway(pods: Vec<GatewayPod>) -> GatewayView {
        GatewayView { pods, ..GatewayView::default() }
    }

    #[test]
    fn nobody_is_not_everybody() {
        assert!(!all_ready_at(&gateway(vec![]), 1));
        assert!(!all_ready_at(&gateway(vec![pod(false, Some(1))]), 1));
        assert!(!all_ready_at(&gateway(vec![pod(true, Some(1)), pod(true, None)]), 1));
        assert!(all_ready_at(&gateway(vec![pod(true, Some(1)), pod(false, Some(0))]), 1));
        assert!(!is_settled(&gateway(vec![pod(true, Some(1)), pod(false, Some(0))]), 1));
    }

    #[test]
    fn generations_outgrow_every_report() {
        let mut traffic = TrafficStatus { generation: 3, ..TrafficStatus::default() };
        assert!(write_weights(
            &mut traffic,
            stable_only("a"),
            None,
            &gateway(vec![pod(true, Some(12))])
        ));
        assert_eq!(traffic.generation, 13);
        assert!(!write_weights(&mut traffic, stable_only("a"), None, &gateway(vec![])));
    }

    #[test]
    fn weights_of_others_are_not_well_formed() {
        assert!(is_well_formed(&split_weights("a", "b", 50), "a", Some("b")));
        assert!(is_well_formed(&stable_only("a"), "a", None));
        assert!(!is_well_formed(&split_weights("a", "b", 50), "a", None));
        assert!(!is_well_formed(&split_weights("a", "b", 50), "b", Some("a")));
        assert!(!is_well_formed(&[], "a", None));
    }

    #[test]
    fn percentages_read_well() {
        assert_eq!(
            (format_permille(50), format_permille(5), format_permille(1000), format_permille(0)),
            ("5%".into(), "0.5%".into(), "100%".into(), "0%".into())
        );
    }
}
