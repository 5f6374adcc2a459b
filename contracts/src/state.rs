//! The state stream of a gateway pod: `GET /v1/state` at its admin port, newline-delimited JSON.
//!
//! Readers ignore unknown fields and use defaults for missing ones, so that gateways and operators
//! of adjacent versions are compatible.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Path of the stream.
pub const PATH: &str = "/v1/state";
/// Query by which a reader receives the full state once and then only changes.
pub const CHANGES_QUERY: &str = "changes=true";
/// Maximum number of ModelDeployments in one line of changes.
pub const MAX_MODELS_PER_LINE: usize = 500;
/// Longest line in bytes that a reader accepts.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// One line of the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateLine {
    /// Name of the pod.
    pub pod: String,
    /// Requests of all clients since the start of the process. Older gateways omit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientCounts>,
    /// All ModelDeployments, or those that changed.
    #[serde(default)]
    pub models: Vec<ModelState>,
    /// Whether the line contains only changes: everything else is as it was before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub changes: bool,
    /// In a line of changes: UIDs of ModelDeployments that were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Vec<String>>,
    /// In a line of changes: whether the current state continues in the next line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
}

/// Requests of all clients of a gateway pod since the start of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCounts {
    /// All requests that ended.
    pub ended: u64,
    /// Requests that failed without a fault of the client.
    pub failed: u64,
}

/// The state of one ModelDeployment in a gateway pod. The keys of maps are revisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelState {
    /// Name of the ModelDeployment.
    pub name: String,
    /// UID of the ModelDeployment.
    pub uid: String,
    /// Generation of the weights in force; 0 when the gateway has never seen any.
    #[serde(default)]
    pub generation: i64,
    /// Requests since the generation was applied.
    #[serde(default)]
    pub requests: BTreeMap<String, u64>,
    /// Requests that were answered, including client errors. Older gateways omit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<BTreeMap<String, u64>>,
    /// Requests since the generation was applied that were kept from the candidate, because their
    /// bodies could not be buffered for a replay.
    #[serde(default)]
    pub unshielded: u64,
    /// Requests in flight.
    #[serde(default)]
    pub in_flight: BTreeMap<String, u64>,
    /// Number of ready endpoints.
    #[serde(default)]
    pub ready_endpoints: BTreeMap<String, u64>,
    /// Why this pod sends no traffic to a candidate, if so.
    #[serde(default)]
    pub brake: Option<BrakeTrip>,
}

/// A tripped brake (circuit breaker of a candidate).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrakeTrip {
    /// Revision of the candidate.
    pub revision: String,
    /// Generation of the weights at that time.
    #[serde(default)]
    pub generation: i64,
    /// The reason as a sentence for the user.
    #[serde(default)]
    pub reason: String,
    /// Failures since the generation was applied.
    #[serde(default)]
    pub failures: u64,
    /// Requests counted by the brake since the generation was applied.
    #[serde(default)]
    pub requests: u64,
    /// Time of the trip.
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
