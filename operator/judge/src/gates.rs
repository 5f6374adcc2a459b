//! The types of gates, one file each, and the registry that finds them.

mod accuracy;
mod error_rate;
pub(crate) mod latency;
mod promql;

use jiff::Timestamp;
use slipway_crds::v1alpha1::{AnalysisMode, AnalysisSpec, GateSpec, GateType};

use crate::evidence::{EvidenceQuery, GateQueries, GateReading};
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::query::SeriesSelector;

/// The behaviour that is specific to a type of gate.
pub(crate) trait GateKind: Sync {
    /// The name of the gate of this type in the default analysis; `None` if the default analysis
    /// has no gate of this type.
    fn default_name(&self) -> Option<&'static str> {
        None
    }

    /// The query for Prometheus.
    fn query(&self, gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery;

    /// Judges a usable reading. `alpha` is the gate's share of the probability of a false rollback,
    /// for gates that compare arms by a test.
    fn judge(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        reading: &GateReading,
        alpha: f64,
        taken_at: Timestamp,
    ) -> GateFinding;

    /// Completes a finding without a reading by the state that is stored in the status.
    fn without_reading(
        &self,
        _input: &JudgeInput<'_>,
        _gate: &GateSpec,
        finding: GateFinding,
    ) -> GateFinding {
        finding
    }

    /// Whether the gate compares both arms by a test.
    fn compares_arms(&self) -> bool {
        true
    }

    /// Whether the user writes the query.
    fn runs_user_query(&self) -> bool {
        false
    }

    /// Number of consecutive evaluations that decide.
    fn looks_to_decide(&self, _gate: &GateSpec) -> i32 {
        1
    }

    /// The first percentage in the settings of this type that is out of its range. Also checks
    /// settings of this type in a gate of another type.
    fn find_share_problem(&self, _gate: &GateSpec) -> Option<String> {
        None
    }

    /// Other errors in the settings of this type, including that they are present in a gate of
    /// another type.
    fn find_settings_problem(&self, _gate: &GateSpec) -> Option<String> {
        None
    }
}

macro_rules! registry {
    ($($type_:ident => $kind:expr,)*) => {
        /// All types, in the order in which their settings are checked.
        const TYPES: [GateType; [$(GateType::$type_),*].len()] = [$(GateType::$type_),*];

        /// The behaviour of a type.
        pub(crate) fn kind_of(type_: GateType) -> &'static dyn GateKind {
            match type_ {
                $(GateType::$type_ => &$kind,)*
            }
        }
    };
}

registry! {
    ErrorRate => error_rate::ErrorRateKind,
    Accuracy => accuracy::AccuracyKind,
    Latency => latency::LatencyKind,
    PromQl => promql::PromQlKind,
}

/// The gates of an analysis. With mode Default the gates with a default name and default settings
/// (`errors` and `latency`), with mode Custom those of the spec, with mode Disabled none, so that
/// nothing is judged.
pub fn resolved_gates(analysis: &AnalysisSpec) -> Vec<GateSpec> {
    match analysis.mode {
        AnalysisMode::Default => TYPES.into_iter().filter_map(default_gate).collect(),
        AnalysisMode::Custom => analysis.gates.clone().unwrap_or_default(),
        AnalysisMode::Disabled => Vec::new(),
    }
}

fn default_gate(type_: GateType) -> Option<GateSpec> {
    Some(GateSpec::of_type(kind_of(type_).default_name()?, type_))
}

/// The queries of all gates, in their order. `matchers` are additional label matchers of the
/// administrator, for a store with the metrics of several clusters.
pub fn gate_queries(
    namespace: &str,
    name: &str,
    gates: &[GateSpec],
    candidate: &str,
    stable: &str,
    matchers: &[String],
) -> Vec<GateQueries> {
    let matchers = matchers.iter().map(|matcher| format!(",{matcher}")).collect();
    let selector = SeriesSelector { namespace, name, candidate, stable, matchers };
    gates
        .iter()
        .map(|gate| GateQueries {
            gate: gate.name.clone(),
            queries: kind_of(gate.type_).query(gate, &selector),
        })
        .collect()
}

/// Whether a gate compares both arms by a test. If the candidate has all traffic, such a gate has
/// nothing to compare.
pub fn compares_arms(gate: &GateSpec) -> bool {
    kind_of(gate.type_).compares_arms()
}

/// Whether the user writes the query of a gate, which an administrator may forbid.
pub fn runs_user_query(gate: &GateSpec) -> bool {
    kind_of(gate.type_).runs_user_query()
}

/// Number of consecutive evaluations of a gate that decide.
pub fn looks_to_decide(gate: &GateSpec) -> i32 {
    kind_of(gate.type_).looks_to_decide(gate)
}

/// The first percentage of a gate that is out of its range, with its field and the remedy.
pub fn find_share_problem(gate: &GateSpec) -> Option<String> {
    TYPES.into_iter().find_map(|type_| kind_of(type_).find_share_problem(gate))
}

/// Other errors in the settings of a gate, with the field and the remedy.
pub fn find_settings_problem(gate: &GateSpec) -> Option<String> {
    TYPES.into_iter().find_map(|type_| kind_of(type_).find_settings_problem(gate))
}

/// The path of a field of a gate, for messages.
fn field_path(gate: &GateSpec, field: &str) -> String {
    format!("spec.analysis.gates[{}].{field}", gate.name)
}
