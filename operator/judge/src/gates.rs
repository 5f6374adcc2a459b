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

/// What is particular to a type of gate.
pub(crate) trait GateKind: Sync {
    /// The name of the gate of this type that judges where the spec says nothing of gates; nothing
    /// when none does.
    fn default_name(&self) -> Option<&'static str> {
        None
    }

    /// What is asked of Prometheus.
    fn query(&self, gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery;

    /// Judges a reading that brought something. `alpha` is the gate's share of the chance of a
    /// false rollback, for those that compare arms by a test.
    fn judge(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        reading: &GateReading,
        alpha: f64,
        taken_at: Timestamp,
    ) -> GateFinding;

    /// A finding about a reading that could not be taken, with what the status remembers.
    fn without_reading(
        &self,
        _input: &JudgeInput<'_>,
        _gate: &GateSpec,
        finding: GateFinding,
    ) -> GateFinding {
        finding
    }

    /// Whether it compares both arms by a test.
    fn compares_arms(&self) -> bool {
        true
    }

    /// Whether the query is its author's.
    fn runs_user_query(&self) -> bool {
        false
    }

    /// How many looks in a row decide.
    fn looks_to_decide(&self, _gate: &GateSpec) -> i32 {
        1
    }

    /// The first percentage among the settings of this type that is out of its range, also where
    /// they are those of a gate of another type.
    fn find_share_problem(&self, _gate: &GateSpec) -> Option<String> {
        None
    }

    /// What else is wrong with the settings of this type, also with that they are there.
    fn find_settings_problem(&self, _gate: &GateSpec) -> Option<String> {
        None
    }
}

macro_rules! registry {
    ($($type_:ident => $kind:expr,)*) => {
        /// All types, in the order in which their settings are checked.
        const TYPES: [GateType; [$(GateType::$type_),*].len()] = [$(GateType::$type_),*];

        /// What is particular to a type.
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

/// The gates of an analysis: with mode Default those that have a default name, with their defaults
/// (`errors` and `latency`); with mode Custom those it names, with mode Disabled none: no judge.
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

/// The queries of all gates, in their order. `matchers` are those of the administrator, where one
/// store holds the metrics of several clusters.
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

/// Whether a gate compares both arms by a test. With all traffic at the candidate it has nothing to
/// compare any more.
pub fn compares_arms(gate: &GateSpec) -> bool {
    kind_of(gate.type_).compares_arms()
}

/// Whether a gate asks what its author wrote: an administrator may forbid that.
pub fn runs_user_query(gate: &GateSpec) -> bool {
    kind_of(gate.type_).runs_user_query()
}

/// How many looks of a gate in a row decide.
pub fn looks_to_decide(gate: &GateSpec) -> i32 {
    kind_of(gate.type_).looks_to_decide(gate)
}

/// The first percentage of a gate that is out of its range, with its field and the remedy.
pub fn find_share_problem(gate: &GateSpec) -> Option<String> {
    TYPES.into_iter().find_map(|type_| kind_of(type_).find_share_problem(gate))
}

/// What else makes a gate one that cannot be judged, with its field and the remedy.
pub fn find_settings_problem(gate: &GateSpec) -> Option<String> {
    TYPES.into_iter().find_map(|type_| kind_of(type_).find_settings_problem(gate))
}

/// The field of a gate, for people.
fn field_path(gate: &GateSpec, field: &str) -> String {
    format!("spec.analysis.gates[{}].{field}", gate.name)
}
