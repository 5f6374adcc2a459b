//! Compares the share of wrong predictions, by feedback labels, with that of stable.

use jiff::Timestamp;
use slipway_contracts::metric_names;
use slipway_crds::v1alpha1::GateSpec;
use slipway_crds::v1alpha1::units::{SHARE_BOUNDS, check_share};

use super::{GateKind, field_path};
use crate::evidence::{EvidenceQuery, GateReading};
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::query::{GATEWAY_PODS, SeriesSelector, sum_by_result};
use crate::rates::{RateCriteria, count_arms, judge_arms};

/// Gates of type Accuracy.
pub(super) struct AccuracyKind;

impl GateKind for AccuracyKind {
    fn query(&self, _gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery {
        EvidenceQuery::Counts(accuracy_query(selector))
    }

    fn judge(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        reading: &GateReading,
        alpha: f64,
        taken_at: Timestamp,
    ) -> GateFinding {
        let settings = gate.accuracy.clone().unwrap_or_default();
        let criteria = RateCriteria::new(
            &settings.max_drop,
            settings.min_labels,
            alpha,
            "labelled prediction",
            "wrong",
        );
        judge_arms(input, count_arms(input, reading, &criteria), &criteria, taken_at)
    }

    fn find_share_problem(&self, gate: &GateSpec) -> Option<String> {
        let settings = gate.accuracy.as_ref()?;
        check_share(&field_path(gate, "accuracy.maxDrop"), &settings.max_drop, SHARE_BOUNDS)
    }
}

fn accuracy_query(selector: &SeriesSelector<'_>) -> String {
    let increase = selector.increase(
        metric_names::GATEWAY_FEEDBACK_TOTAL,
        GATEWAY_PODS,
        r#",result=~"correct|incorrect""#,
        "result",
    );
    sum_by_result(&increase, "result", "incorrect", "correct")
}
