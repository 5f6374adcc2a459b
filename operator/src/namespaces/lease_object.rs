//! The Lease of a namespace: how its holder is determined, and how it is written.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use slipway_core::event::PlannedEvent;
use slipway_crds::labels;

/// Name of the Lease in each namespace with ModelDeployments.
pub const LEASE_NAME: &str = "slipway-modeldeployments";
/// How long the Lease is valid without renewal: an operator that is updated or moved to another
/// node must not lose it.
const LEASE_DURATION: SignedDuration = SignedDuration::from_mins(30);
/// Renewal interval. With a thousand namespaces it makes fewer than two writes per second.
pub(crate) const RENEW_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// The holder of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceHolder {
    /// This operator; it renewed the Lease last at this time.
    ThisOperator(Timestamp),
    /// No operator, or an operator that has not renewed the Lease in time.
    Unclaimed,
    /// Another operator.
    OtherOperator(String),
}

/// The holder of a namespace according to its Lease. `own` is the name of this operator in Leases.
pub fn namespace_holder(lease: Option<&Lease>, own: &str, now: Timestamp) -> NamespaceHolder {
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else {
        return NamespaceHolder::Unclaimed;
    };
    let renewed = spec.renew_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let length = spec
        .lease_duration_seconds
        .map_or(LEASE_DURATION, |it| SignedDuration::from_secs(it.into()));
    match spec.holder_identity.as_deref().unwrap_or_default() {
        "" => NamespaceHolder::Unclaimed,
        // Valid at any age: no other operator has taken the Lease since.
        holder if holder == own => NamespaceHolder::ThisOperator(renewed),
        holder if now.duration_since(renewed) < length => {
            NamespaceHolder::OtherOperator(holder.to_owned())
        }
        _ => NamespaceHolder::Unclaimed,
    }
}

/// The Lease as this operator writes it. The transition count increases when the holder changes.
pub(crate) fn renewed_lease(
    before: Option<&Lease>,
    own: &str,
    namespace: &str,
    owner: Option<OwnerReference>,
    now: Timestamp,
) -> Lease {
    let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let ours = spec.holder_identity.as_deref() == Some(own);
    let mut metadata = before.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone());
    metadata.name = Some(LEASE_NAME.to_owned());
    metadata.namespace = Some(namespace.to_owned());
    metadata
        .labels
        .get_or_insert_default()
        .insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned());
    metadata.managed_fields = None;
    if let Some(owner) = owner {
        metadata.owner_references = Some(vec![owner]);
    }
    let transitions = spec.lease_transitions.unwrap_or_default();
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(own.to_owned()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: spec.acquire_time.filter(|_| ours).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..spec
        }),
    }
}

/// The event for a ModelDeployment whose namespace is held by an operator other than `own`.
pub fn other_operator_note(namespace: &str, own: &str, holder: &str) -> PlannedEvent {
    PlannedEvent {
        warning: true,
        reason: "OtherOperator".to_owned(),
        action: "LeaveAlone".to_owned(),
        note: format!(
            "the operator {holder} looks after namespace {namespace}, as Lease {LEASE_NAME} there says; this one, {own}, leaves it alone. Write {own} as holderIdentity into \
             that Lease to hand it over"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn lease(holder: &str, renewed: &str) -> Lease {
        let object = serde_json::json!({
            "metadata": {"name": LEASE_NAME, "namespace": "lab", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1800, "renewTime": renewed, "leaseTransitions": 2}
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_namespace_is_of_who_came_first_until_it_is_gone_for_half_an_hour() {
        let now: Timestamp = NOW.parse().unwrap();
        let (fresh, old) = ("2026-01-01T00:45:00.000000Z", "2026-01-01T00:29:00.000000Z");
        assert_eq!(namespace_holder(None, "a", now), NamespaceHolder::Unclaimed);
        assert_eq!(
            namespace_holder(Some(&lease("", fresh)), "a", now),
            NamespaceHolder::Unclaimed,
            "given back"
        );
        assert_eq!(
            namespace_holder(Some(&lease("b", fresh)), "a", now),
            NamespaceHolder::OtherOperator("b".into())
        );
        assert_eq!(namespace_holder(Some(&lease("b", old)), "a", now), NamespaceHolder::Unclaimed);
        assert!(
            matches!(
                namespace_holder(Some(&lease("a", old)), "a", now),
                NamespaceHolder::ThisOperator(_)
            ),
            "nobody took it meanwhile"
        );
    }

    #[test]
    fn who_takes_it_from_another_counts_a_transition_and_keeps_what_others_wrote() {
        let now: Timestamp = NOW.parse().unwrap();
        let mut before = lease("b", NOW);
        before.metadata.annotations = Some([("theirs".to_owned(), "yes".to_owned())].into());
        let taken = renewed_lease(Some(&before), "a", "lab", None, now);
        assert_eq!(
            taken.metadata.resource_version.as_deref(),
            Some("7"),
            "only the one that was seen is replaced"
        );
        assert_eq!(taken.metadata.annotations, before.metadata.annotations);
        let spec = taken.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(3)));
        let later = now + RENEW_AFTER;
        let again = renewed_lease(Some(&taken), "a", "lab", None, later).spec.unwrap();
        assert_eq!((again.lease_transitions, again.acquire_time), (Some(3), Some(MicroTime(now))));
        assert_eq!(again.renew_time, Some(MicroTime(later)));
    }
}
