//! Compares the share of failed requests with that of stable.

use jiff::Timestamp;
use slipway_contracts::metric_names;
use slipway_crds::v1alpha1::GateSpec;
use slipway_crds::v1alpha1::units::{SHARE_BOUNDS, check_share};

use super::{GateKind, field_path};
use crate::evidence::{EvidenceQuery, GateReading};
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::query::{GATEWAY_PODS, ROLES, SeriesSelector, sum_by_result};
use crate::rates::{RateCriteria, count_arms, judge_arms};

/// Gates of type ErrorRate.
pub(super) struct ErrorRateKind;

impl GateKind for ErrorRateKind {
    fn default_name(&self) -> Option<&'static str> {
        Some("errors")
    }

    fn query(&self, _gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery {
        EvidenceQuery::Counts(errors_query(selector))
    }

    fn judge(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        reading: &GateReading,
        alpha: f64,
        taken_at: Timestamp,
    ) -> GateFinding {
        let settings = gate.error_rate.clone().unwrap_or_default();
        let criteria = RateCriteria::new(
            &settings.max_increase,
            settings.min_requests,
            alpha,
            "request",
            "failed",
        );
        judge_arms(input, count_arms(input, reading, &criteria), &criteria, taken_at)
    }

    fn find_share_problem(&self, gate: &GateSpec) -> Option<String> {
        let settings = gate.error_rate.as_ref()?;
        check_share(
            &field_path(gate, "errorRate.maxIncrease"),
            &settings.max_increase,
            SHARE_BOUNDS,
        )
    }
}

/// Outcomes that are faults of an arm count as bad, answers as good (4xx is a correct answer to a
/// client error), and requests whose client left before stable would have answered count as
/// neither; if the client waited longer, the outcome is `timeout`. `contract_error` is a 4xx that
/// stable contradicted; `try_timeout` is a try that exceeded its time limit, counted alike in both
/// arms.
fn errors_query(selector: &SeriesSelector<'_>) -> String {
    let outcomes =
        "success|client_error|contract_error|server_error|timeout|try_timeout|unavailable";
    let further = format!(r#",{ROLES},outcome=~"{outcomes}""#);
    let increase = selector.increase(
        metric_names::GATEWAY_REQUESTS_TOTAL,
        GATEWAY_PODS,
        &further,
        "role, outcome",
    );
    sum_by_result(
        &increase,
        "outcome",
        "contract_error|server_error|timeout|try_timeout|unavailable",
        "success|client_error",
    )
}
