//! Exports one series for each condition of a ModelDeployment that is not in its normal state, so
//! that alerts can contain the object, the condition and the reason. An object in its normal state
//! has no series, so that ten thousand of them cost nothing.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use slipway_cluster_views::{ModelMemory, ObjectOwner};
use slipway_crds::conditions::{GATE_PASSED, READY};
use slipway_crds::v1alpha1::ModelDeploymentStatus;

/// Labels of one condition. Prometheus sets `namespace` to the operator's own namespace, hence the
/// longer names.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct ConditionLabels {
    pub modeldeployment_namespace: String,
    /// Name of the ModelDeployment.
    pub modeldeployment: String,
    /// Type of the condition.
    pub condition: String,
    pub status: String,
    pub reason: String,
}

/// The series of all ModelDeployments.
#[derive(Debug, Default)]
pub struct ConditionMetrics {
    family: Family<ConditionLabels, Gauge>,
    /// Exported labels, by UID.
    shown: Mutex<HashMap<String, BTreeSet<ConditionLabels>>>,
}

impl ConditionMetrics {
    /// The metric family to register.
    pub fn family(&self) -> Family<ConditionLabels, Gauge> {
        self.family.clone()
    }

    /// Replaces the exported conditions of an object.
    pub fn show(&self, uid: &str, namespace: &str, name: &str, status: &ModelDeploymentStatus) {
        let labels =
            status.conditions.iter().filter(|it| !is_at_rest(&it.type_, &it.status)).map(|it| {
                ConditionLabels {
                    modeldeployment_namespace: namespace.to_owned(),
                    modeldeployment: name.to_owned(),
                    condition: it.type_.clone(),
                    status: it.status.clone(),
                    reason: it.reason.clone(),
                }
            });
        self.replace(uid, labels.collect());
    }

    fn replace(&self, uid: &str, wanted: BTreeSet<ConditionLabels>) {
        let mut shown = self.shown.lock();
        for gone in shown.get(uid).into_iter().flatten().filter(|it| !wanted.contains(it)) {
            self.family.remove(gone);
        }
        for labels in &wanted {
            self.family.get_or_create(labels).set(1);
        }
        if wanted.is_empty() {
            shown.remove(uid);
        } else {
            shown.insert(uid.to_owned(), wanted);
        }
    }
}

impl ModelMemory for ConditionMetrics {
    fn forget(&self, uid: &str, _: &ObjectOwner) {
        self.replace(uid, BTreeSet::new());
    }

    fn remembers(&self, uid: &str, _: &ObjectOwner) -> bool {
        self.shown.lock().contains_key(uid)
    }
}

/// Whether a condition says what it says of an object that serves and has no rollout, or whose
/// gates do not fail.
fn is_at_rest(condition: &str, status: &str) -> bool {
    match condition {
        READY => status == "True",
        GATE_PASSED => status != "False",
        _ => status == "False",
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;
    use crate::metrics::OperatorMetrics;

    fn status(conditions: &[(&str, &str, &str)]) -> ModelDeploymentStatus {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let conditions = conditions.iter().map(condition).collect();
        ModelDeploymentStatus { conditions, ..ModelDeploymentStatus::default() }
    }

    fn series(metrics: &OperatorMetrics) -> Vec<String> {
        let text = metrics.encode_text();
        text.lines()
            .filter(|line| line.starts_with("slipway_operator_condition{"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn only_what_is_not_at_rest_has_a_series_and_none_outlives_its_object() {
        let metrics = OperatorMetrics::default();
        let show = |uid: &str, name: &str, conditions: &[_]| {
            metrics.conditions.show(uid, "team", name, &status(conditions));
        };
        let rest = [("Ready", "True", "Stable"), ("GatePassed", "Unknown", "NoVerdict")];
        show("u1", "good", &rest);
        assert_eq!(series(&metrics), [""; 0]);
        show(
            "u2",
            "bad",
            &[("Ready", "False", "Unavailable"), ("Reconciling", "True", "GatewaysUnreachable")],
        );
        let of = |condition: &str, reason: &str, status: &str| {
            format!(
                "slipway_operator_condition{{modeldeployment_namespace=\"team\",modeldeployment=\"bad\",condition=\"{condition}\",status=\"{status}\",reason=\"{reason}\"}} 1"
            )
        };
        let mut both = series(&metrics);
        both.sort();
        assert_eq!(
            both,
            [of("Ready", "Unavailable", "False"), of("Reconciling", "GatewaysUnreachable", "True")]
        );
        show("u2", "bad", &[("Stalled", "True", "InvalidSpec")]);
        assert_eq!(
            series(&metrics),
            [of("Stalled", "InvalidSpec", "True")],
            "the old reason is gone"
        );
        metrics.conditions.forget("u2", &ObjectOwner::model("team", "bad"));
        assert_eq!(series(&metrics), [""; 0]);
    }
}
