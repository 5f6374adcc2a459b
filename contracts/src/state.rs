//! The state stream of a gateway pod: `GET /v1/state` at its admin port, newline-delimited JSON.
//!
//! Readers ignore fields that they do not know and take missing ones for their defaults, so that
//! gateways and operators of neighbouring versions understand each other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Path of the stream.
pub const PATH: &str = "/v1/state";
/// Query by which a reader gets everything once and then changes only.
pub const CHANGES_QUERY: &str = "changes=true";
/// ModelDeployments in one line of changes.
pub const MAX_MODELS_PER_LINE: usize = 500;
/// Longest line in bytes that a reader takes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateLine {
    /// Name of the pod.
    pub pod: String,
    /// Requests of all clients since the process began. Older gateways leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientCounts>,
    /// All ModelDeployments, or those about which there is something new.
    #[serde(default)]
    pub models: Vec<ModelState>,
    /// Whether the line has changes only: what it does not name is as it was before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub changes: bool,
    /// In a line of changes: UIDs of ModelDeployments that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Vec<String>>,
    /// In a line of changes: whether the present state goes on in the next line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
}

/// Requests of all clients of a gateway pod since its process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCounts {
    /// All that ended.
    pub ended: u64,
    /// Those that failed by no fault of the client.
    pub failed: u64,
}

/// What a gateway pod knows of one ModelDeployment. Maps have revisions as keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelState {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Generation of the weights in force; 0 when none was ever seen.
    #[serde(default)]
    pub generation: i64,
    /// Requests since the generation was applied.
    #[serde(default)]
    pub requests: BTreeMap<String, u64>,
    /// Those that were answered, mistakes of clients included. Older gateways leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<BTreeMap<String, u64>>,
    /// Requests since the generation was applied that were kept from the candidate, because their
    /// bodies could not be kept for a replay.
    #[serde(default)]
    pub unshielded: u64,
    /// Requests that run now.
    #[serde(default)]
    pub in_flight: BTreeMap<String, u64>,
    /// Ready endpoints.
    #[serde(default)]
    pub ready_endpoints: BTreeMap<String, u64>,
    /// Why this pod sends no traffic to a candidate, if so.
    #[serde(default)]
    pub brake: Option<BrakeTrip>,
}

/// A brake (circuit breaker of a candidate) that has opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrakeTrip {
    /// The candidate.
    pub revision: String,
    /// Generation of the weights at that moment.
    #[serde(default)]
    pub generation: i64,
    /// Why, as a sentence for people.
    #[serde(default)]
    pub reason: String,
    /// Failures since the generation was applied.
    #[serde(default)]
    pub failures: u64,
    /// Judged requests since the generation was applied.
    #[serde(default)]
    pub requests: u64,
    /// When.
    pub at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn whole_line() -> Value {
        json!({
            "pod": "gw-1", "clients": {"ended": 9000, "failed": 3},
            "models": [{
                "name": "digits", "uid": "u", "generation": 12, "requests": {"a": 123},
                "answered": {"a": 120}, "unshielded": 0, "inFlight": {"a": 2},
                "readyEndpoints": {"a": 3},
                "brake": {
                    "revision": "b", "generation": 12, "reason": "r", "failures": 11,
                    "requests": 14, "at": "2026-01-02T03:04:05Z",
                },
            }],
        })
    }

    #[test]
    fn a_line_is_written_as_it_is_read() {
        for line in [
            whole_line(),
            json!({"pod": "gw-1", "models": [], "changes": true, "gone": ["u"], "more": false}),
        ] {
            let state: StateLine = serde_json::from_value(line.clone()).unwrap();
            assert_eq!(serde_json::to_value(&state).unwrap(), line);
        }
    }

    #[test]
    fn missing_fields_have_defaults_and_unknown_ones_are_ignored() {
        let line = r#"{"pod":"gw-1","models":[{"name":"n","uid":"u"}],"later":1}"#;
        let state: StateLine = serde_json::from_str(line).unwrap();
        assert_eq!((state.clients, state.changes, state.gone), (None, false, None));
        let model = &state.models[0];
        assert_eq!((model.generation, &model.answered, &model.brake), (0, &None, &None));
    }
}
